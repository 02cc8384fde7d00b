"""``pslib search``: the page of ranked matches on one's own images, and every mistake one sentence."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from toy_sets import toy_model, toy_split

from pslib import search_page
from pslib.cli import main
from pslib.data.loading import read_image
from pslib.evaluation.gallery import embed_gallery
from pslib.search_page import embed_box, open_folder
from pslib.training.checkpoints import load_model, save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A model that detects something in every toy frame: its class scores are raised above the threshold."""
    model = toy_model().eval()
    with torch.no_grad():
        model.head.classify.bias += 6.0
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    save_weights(path, model, {"test_size": "null"})
    return path


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of one's own: the toy test frames, a picture below, a text, and three that cannot be read."""
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("PSLIB_PLAIN", "1")  # bars would stand between the sentences on standard error
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    frames = toy_split("test").frames
    for number, frame in enumerate(frames[:5]):
        place = folder / ("sub" if number == 4 else ".") / f"<{number}> & co.jpg"
        place.write_bytes(frame.path.read_bytes())
    whole = frames[0].path.read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "words.png").write_text("no picture")
    (folder / "empty.jpeg").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture either")
    (folder / ".hidden.jpg").write_text("left alone")
    query = tmp_path / "query.jpg"
    query.write_bytes(frames[5].path.read_bytes())
    return folder, query


def command(own, model, page, **changes):
    folder, query = own
    options = {"query": query, "box": "10,5,20,40", "gallery": folder, "weights": model, "out": page} | changes
    return main(["search", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())])


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        attributes = dict(attributes)
        self.links += [value for name, value in attributes.items() if name in ("href", "src", "srcset", "action")]
        if tag == "img":
            self.images.append(attributes)


def test_a_page_of_ranked_matches(own, weights, tmp_path, capsys):
    out = tmp_path / "result.html"
    assert command(own, weights, out, top=4, min_score=0) == 0
    said, text = capsys.readouterr().out, out.read_text()
    assert "read: 100 %" in said and "embed own-images: 100 %" in said, "a progress bar while it works"
    assert "searched 5 pictures" in said and "skipped 3 unreadable files" in said and str(out) in said
    for name in ("broken.jpg", "words.png", "empty.jpeg"):
        assert f"skipped {name}:" in said and name in text
    assert "notes.txt" not in said and "Left alone, being no pictures: 1 other file." in text and "hidden" not in text
    page = Page(text)
    assert page.links and all(link.startswith("data:image/jpeg;base64,") for link in page.links), "no network"
    assert not {"script", "link", "iframe"} & set(page.tags) and "default-src 'none'" in text
    assert not re.search(r"https?://", text)
    alts = [image["alt"] for image in page.images]
    assert alts[0] == "The person searched for: box x=10, y=5, w=20, h=40 in query.jpg"
    assert [alt.partition(":")[0] for alt in alts[1:]] == [f"Rank {rank}" for rank in range(1, 5)]
    similar = [float(re.search(r"similarity (-?[\d.]+)", alt)[1]) for alt in alts[1:]]
    assert similar == sorted(similar, reverse=True)
    assert all("score" in alt and "not labelled" in alt and "co.jpg" in alt for alt in alts[1:])
    assert "&lt;" in text and "<0>" not in text, "names of files are text, never markup"
    assert str(tmp_path) not in text, "the page can be given away: no paths in it"


def test_the_ranking_is_the_models(own, weights, tmp_path):
    out = tmp_path / "result.html"
    assert command(own, weights, out, top=100, min_score=0) == 0
    model, folder = load_model(weights), open_folder(own[0])
    found = embed_gallery(model, folder.data).detections
    pixels = np.asarray(Image.open(own[1]).convert("RGB"))
    query = embed_box(model, pixels, [10, 5, 30, 45])
    best = np.argsort(-(found.embeddings @ query), kind="stable")[:100]
    names = [folder.data.frames[found.frame[row]].name for row in best]
    shown = [image["alt"] for image in Page(out.read_text()).images[1:]]
    assert [alt.rpartition(", ")[2] for alt in shown] == names


def test_a_second_search_does_not_embed_again(own, weights, tmp_path, capsys):
    for expected in (True, False):
        assert command(own, weights, tmp_path / "result.html") == 0
        assert ("embed own-images" in capsys.readouterr().out) == expected


def test_the_querys_own_picture_is_left_out(own, weights, tmp_path):
    out, mine = tmp_path / "result.html", own[0] / "<0> & co.jpg"
    assert command(own, weights, out, query=mine, min_score=0) == 0
    text = out.read_text()
    assert "Searched 4 pictures" in text and "own picture, was left out" in text
    assert not [image["alt"] for image in Page(text).images[1:] if "<0>" in image["alt"]]


def test_embedding_a_box_is_embedding_an_annotated_one(weights):
    model, data = load_model(weights), toy_split("test")
    truth = embed_gallery(model, data, batch_size=1, test_size=(80, 60)).ground_truth
    frame = data.frames[0]
    image = read_image(frame.path).permute(1, 2, 0).numpy()
    assert np.allclose(embed_box(model, image, frame.boxes[0].tolist(), (80, 60)), truth.embeddings[0], atol=1e-5)


def other_tensors(path):
    save_file({"weight": torch.zeros(3)}, path)
    return path


def big_picture(path):
    Image.new("1", (10000, 5000)).save(path)
    return path


def one_sentence(capsys):
    said = capsys.readouterr().err
    assert said.startswith("pslib: ") and said.count("\n") == 1 and "Traceback" not in said
    return said


@pytest.mark.parametrize("changes, sentence", [
    ({"box": "500,5,20,40"}, "covers less than"),
    ({"box": "10,5,0,40"}, "covers less than"),
    ({"box": "10,5,20"}, "'10,5,20' is no box"),
    ({"box": "10,5,nan,40"}, "covers less than"),
    ({"query": "no-such.jpg"}, "no-such.jpg"),
    ({"gallery": "no-such-folder"}, "no-such-folder is no folder"),
    ({"weights": "no-such.safetensors"}, "no-such.safetensors"),
    ({"out": "no-such-folder/result.html"}, "no-such-folder"),
    ({"top": 0}, "--top 0"),
    ({"min_score": 1.5}, "nobody was detected in 5 pictures"),
])
def test_bad_input_is_one_sentence_and_exit_code_2(own, weights, tmp_path, capsys, changes, sentence):
    assert command(own, weights, tmp_path / "result.html", **changes) == 2
    assert sentence in one_sentence(capsys)
    assert not (tmp_path / "result.html").exists()


def test_files_that_are_no_picture_too_large_or_of_another_model(own, weights, tmp_path, capsys):
    out = tmp_path / "result.html"
    cases = [
        ({"query": own[0] / "notes.txt"}, "notes.txt is no image that can be read"),
        ({"query": own[0] / "broken.jpg"}, "broken.jpg is no image that can be read"),
        ({"query": big_picture(tmp_path / "big.png")}, "has 50 megapixels"),
        ({"weights": other_tensors(tmp_path / "other.safetensors")}, "holds no person-search model"),
        ({"weights": own[1]}, "cannot be read"),
        ({"out": tmp_path}, "cannot be written"),
    ]
    for changes, sentence in cases:
        assert command(own, weights, out, **changes) == 2, sentence
        assert sentence in one_sentence(capsys)


def test_folders_with_nothing_to_search(own, weights, tmp_path, capsys):
    out, bare = tmp_path / "result.html", tmp_path / "bare"
    bare.mkdir()
    assert command(own, weights, out, gallery=bare) == 2
    assert "holds no picture" in one_sentence(capsys)
    (bare / "bad.jpg").write_text("no picture")
    assert command(own, weights, out, gallery=bare) == 2
    assert "none of the 1 pictures" in one_sentence(capsys)
    (bare / "good.jpg").write_bytes(own[1].read_bytes())
    assert command(own, weights, out, gallery=bare, query=bare / "good.jpg") == 2
    assert "only the query's own picture" in one_sentence(capsys)


def test_names_that_are_no_text_and_hidden_folders(own, weights, tmp_path, capsys):
    picture = own[1].read_bytes()
    strange, bad = (own[0] / os.fsdecode(name) for name in (b"caf\xe9.jpg", b"bad\xe9.jpg"))
    strange.write_bytes(picture)
    bad.write_bytes(b"no picture")
    assert command(own, weights, tmp_path / "result.html", query=strange, min_score=0) == 0
    assert "skipped bad?.jpg" in capsys.readouterr().out
    assert "caf?.jpg" in (tmp_path / "result.html").read_text()
    before = {frame.name for frame in search_page.open_folder(own[0]).data.frames}
    (own[0] / ".thumbnails").mkdir()
    (own[0] / ".thumbnails" / "small.jpg").write_bytes(picture)
    assert {frame.name for frame in search_page.open_folder(own[0]).data.frames} == before


def test_a_large_picture_in_the_folder_is_skipped_and_counted(own, weights, tmp_path, capsys):
    big_picture(own[0] / "big.png")
    assert command(own, weights, tmp_path / "result.html") == 0
    said = capsys.readouterr().out
    assert "skipped big.png: has 50 megapixels" in said and "skipped 4 unreadable files" in said


def test_pictures_without_anybody_are_counted(own, weights, tmp_path, monkeypatch):
    def only_frame_1(*arguments, **options):
        found = embed_gallery(arguments[0], arguments[1])
        kept = found.detections.select(found.detections.frame == 1)
        return type(found)(kept, found.ground_truth, found.person_ids)

    monkeypatch.setattr(search_page, "cached_gallery", only_frame_1)
    assert command(own, weights, tmp_path / "result.html", min_score=0) == 0
    assert "In 4 pictures nobody was detected." in (tmp_path / "result.html").read_text()
