"""Pictures as people see them: turned upright, sixteen bits made eight, and plain ones as they always were."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from test_readers import one_sentence

from pslib.data.boxes import image_size
from pslib.data.loading import read_image
from pslib.data.pictures import to_pixels
from pslib.viz.browser_input import open_picture

# How each orientation is stored: what turns the upright picture into the stored one, by rows and columns.
STORED = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}  # fmt: skip


def upright():
    """A picture (48, 80, 3) whose corners differ, in blocks that JPEG keeps."""
    image = np.zeros((48, 80, 3), np.uint8)
    image[:24, :40], image[:24, 40:], image[24:, :40] = (200, 40, 40), (40, 200, 40), (40, 40, 200)
    return image


def read(path):
    """The picture by both doors, which must agree; (H, W, 3)."""
    ours = read_image(path).permute(1, 2, 0).numpy()
    assert np.array_equal(ours, open_picture(path)) and np.array_equal(ours, open_picture(path.read_bytes()))
    assert image_size(path) == ours.shape[:2]
    return ours


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_photo_stored_turned_is_read_upright(tmp_path, orientation, suffix):
    path, exif = tmp_path / f"photo.{suffix}", Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright())))
    stored.save(path, exif=exif, **({"quality": 95} if suffix in ("jpg", "webp") else {}))
    found = read(path)
    assert found.shape == (48, 80, 3)
    assert np.abs(found.astype(int) - upright())[8:16, 8:16].max() < 30  # the corner that is red
    assert np.abs(found.astype(int) - upright())[8:16, 60:70].max() < 30


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    """Planted fault: everything above 255 of 65535 becomes white."""
    gray = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(gray * 257).save(tmp_path / "gray.png")
    assert Image.open(tmp_path / "gray.png").mode == "I;16"
    assert np.array_equal(read(tmp_path / "gray.png"), np.repeat(gray[:, :, None], 3, axis=2))


@pytest.mark.parametrize("mode, suffix", [("RGB", "jpg"), ("L", "jpg"), ("RGB", "png"), ("L", "png"), ("P", "png")])
def test_plain_pictures_are_read_as_they_always_were(tmp_path, monkeypatch, mode, suffix):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    path = tmp_path / f"plain.{suffix}"
    Image.fromarray(pixels).convert(mode).save(path)
    monkeypatch.setattr(ImageOps, "exif_transpose", None)  # nothing is turned, nor copied to find that out
    with Image.open(path) as plain:
        assert np.array_equal(read(path), np.array(plain.convert("RGB")))


def test_the_size_of_a_jpeg_is_read_without_decoding(tmp_path):
    Image.fromarray(upright()).save(tmp_path / "photo.jpg")
    content = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(content[: len(content) - 60])
    assert image_size(tmp_path / "photo.jpg") == (48, 80)
    one_sentence(lambda: read_image(tmp_path / "photo.jpg"), "photo.jpg", "does not decode")


def test_damaged_exif_leaves_the_pixels(tmp_path):
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(upright()).save(stream, "JPEG", exif=exif)
    place = stream.getvalue().index(b"Exif\0\0")
    damaged = bytearray(stream.getvalue())
    damaged[place + 6 : place + 14] = b"\xff" * 8
    (tmp_path / "photo.jpg").write_bytes(damaged)
    assert read(tmp_path / "photo.jpg").shape == (48, 80, 3)
    assert to_pixels(Image.fromarray(upright())).shape == (48, 80, 3)
