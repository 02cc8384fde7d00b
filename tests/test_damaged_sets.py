"""Files of real sets that are damaged, foreign or contradict themselves: each is one sentence that names the place."""

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from set_fixtures import blank_images, frame, hand_made_cuhk, hand_made_prw
from test_readers import cuhk, one_sentence, prw  # noqa: F401 (fixtures)
from toy_sets import write_toy_set

from pslib.cli import main
from pslib.data.annotations import UNLABELLED
from pslib.data.boxes import image_size
from pslib.data.layouts import CuhkProtocol, DrawnQuery, write_cuhk_sysu, write_prw
from pslib.data.loading import fingerprint, load, read_image
from pslib.data.protocol_file import read_protocol
from pslib.errors import UserError
from pslib.experiments import commands, trials
from pslib.experiments.commands import open_run_data

TRAIN, PROTOCOL = "annotation/test/train_test/Train.mat", "annotation/test/train_test/TestG50.mat"


def cells(*values, shape=None):
    """A cell array of MATLAB."""
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape or (-1, 1))


def save_protocol(path, query_fields=("imname", "idlocate", "ishard", "idname"), kind=np.uint8):
    box = np.array([[210, 10, 100, 50]], kind)
    values = {"imname": "s3.jpg", "idlocate": box, "ishard": np.uint8([[0]]), "idname": "p9"}
    query = {field: values[field] for field in query_fields}
    gallery = np.empty((1, 2), [(field, object) for field in ("imname", "idlocate", "ishard")])
    gallery[0, 0] = ("s4.jpg", box * 0 + [20, 10, 30, 50], np.uint8([[0]]))
    gallery[0, 1] = ("s5.jpg", np.empty((1, 0)), np.empty((1, 0)))
    rows = np.empty((1, 1), [("Query", object), ("Gallery", object)])
    rows[0, 0] = (query, gallery)
    scipy.io.savemat(path, {"TestG50": rows})


# ------------------------------------------------------------------------------- files that are something else


def test_a_protocol_file_that_is_a_folder(cuhk):  # noqa: F811
    (cuhk / PROTOCOL).unlink()
    (cuhk / PROTOCOL).mkdir()
    one_sentence(lambda: load("cuhk-sysu", cuhk, "test"), "TestG50.mat", "is a folder")
    (cuhk / TRAIN).unlink()
    (cuhk / TRAIN).mkdir()
    one_sentence(lambda: load("cuhk-sysu", cuhk, "train"), "Train.mat", "is a folder")


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.float32])
def test_protocol_boxes_of_any_type_are_read(cuhk, kind):  # noqa: F811
    save_protocol(cuhk / PROTOCOL, kind=kind)
    test = load("cuhk-sysu", cuhk, "test")
    assert test.protocols["TestG50"].queries[0].box.tolist() == [210, 10, 310, 60]
    assert [f.person_ids.tolist() for f in test.frames] == [[9, UNLABELLED], [9], [UNLABELLED]]


def test_a_protocol_without_names_of_people(cuhk):  # noqa: F811
    save_protocol(cuhk / PROTOCOL, ("imname", "idlocate", "ishard"))
    one_sentence(lambda: list(read_protocol(cuhk / PROTOCOL, "TestG50")), "TestG50.mat", "Query without", "idname")


def test_protocol_boxes_that_are_text(cuhk):  # noqa: F811
    save_protocol(cuhk / PROTOCOL)
    rows = scipy.io.loadmat(cuhk / PROTOCOL)["TestG50"]
    rows[0, 0]["Query"][0, 0]["idlocate"] = np.array(["four numbers"])
    scipy.io.savemat(cuhk / PROTOCOL, {"TestG50": rows})
    one_sentence(lambda: list(read_protocol(cuhk / PROTOCOL, "TestG50")), "TestG50.mat", "cannot be read")


@pytest.mark.parametrize("file, key, split", [
    ("annotation/Images.mat", "Img", "train"),
    (TRAIN, "Train", "train"),
    ("annotation/pool.mat", "pool", "train"),
])  # fmt: skip
def test_numbers_where_structs_or_names_are_expected(cuhk, file, key, split):  # noqa: F811
    scipy.io.savemat(cuhk / file, {key: np.arange(3.0)})
    one_sentence(lambda: load("cuhk-sysu", cuhk, split), file.split("/")[-1], "restore")
    scipy.io.savemat(cuhk / file, {key: {"other": np.arange(3.0)}})
    one_sentence(lambda: load("cuhk-sysu", cuhk, split), file.split("/")[-1], "restore")


def test_people_whose_names_are_no_number(cuhk):  # noqa: F811
    train = scipy.io.loadmat(cuhk / TRAIN)["Train"]
    train[0, 0]["idname"][0, 0] = np.array(["person_3"])
    scipy.io.savemat(cuhk / TRAIN, {"Train": train})
    one_sentence(lambda: load("cuhk-sysu", cuhk, "train"), "person 1 of", "Train.mat", "'person_3'")
    rows = scipy.io.loadmat(cuhk / PROTOCOL)["TestG50"]
    rows[0, 0]["Query"][0, 0]["idname"] = np.array(["anna"])
    scipy.io.savemat(cuhk / PROTOCOL, {"TestG50": rows})
    one_sentence(lambda: load("cuhk-sysu", cuhk, "test"), "query 0 of", "TestG50.mat", "'anna'")


def test_boxes_of_three_numbers(cuhk):  # noqa: F811
    """Planted fault: four boxes of three numbers are taken for three boxes of four."""
    images = scipy.io.loadmat(cuhk / "annotation/Images.mat")["Img"]
    images[0, 0]["box"] = np.repeat(images[0, 0]["box"], 4, axis=1)
    for box in images[0, 0]["box"].ravel():
        box["idlocate"] = np.uint8([[200, 10, 100]])
    scipy.io.savemat(cuhk / "annotation/Images.mat", {"Img": images})
    one_sentence(lambda: load("cuhk-sysu", cuhk, "train"), "s2.jpg", "Images.mat", "[200, 10, 100]")


@pytest.mark.parametrize("name", [np.empty(0), "", 151.0])
def test_frame_lists_with_entries_that_are_no_name(prw, name):  # noqa: F811
    scipy.io.savemat(prw / "frame_test.mat", {"img_index_test": cells("c1s2_000200", name)})
    one_sentence(lambda: load("prw", prw, "test"), "entry 2", "frame_test.mat", "no text")


@pytest.mark.parametrize("table", [cells(9.0, "x", shape=(1, 2)), "9 30 20 25 60", np.array([[9 + 1j, 1, 1, 9, 9]])])
def test_tables_that_hold_no_numbers(prw, table):  # noqa: F811
    scipy.io.savemat(prw / "annotations/c1s2_000200.jpg.mat", {"box_new": table})
    one_sentence(lambda: load("prw", prw, "test"), "c1s2_000200.jpg.mat", "no table of numbers")


def test_a_picture_too_large_to_open(tmp_path, monkeypatch):
    Image.new("L", (100, 90)).save(tmp_path / "poster.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    one_sentence(lambda: read_image(tmp_path / "poster.png"), "poster.png", "too many pixels", "smaller")
    one_sentence(lambda: image_size(tmp_path / "poster.png"), "poster.png", "too many pixels", "smaller")


# ------------------------------------------------------------------------------- files that contradict themselves


def test_two_people_in_one_box_are_noted(tmp_path):
    """The box itself cannot say whose it is; both people would else be trained on without a word."""
    train = [frame("s1.jpg", [[5, 5, 20, 40], [5, 5, 20, 40], [60, 5, 20, 40]], [3, 4, 5]),
             frame("s2.jpg", [[5, 5, 20, 40]], [3])]  # fmt: skip
    test = [frame(f"s{3 + i}.jpg", [[5, 5, 20, 40]] * 2, [8, 9]) for i in range(2)]
    blank_images(tmp_path / "Image/SSM", train + test)
    both = CuhkProtocol("train_test/TestG50.mat", "TestG50", [DrawnQuery(0, 0), DrawnQuery(0, 1)], [np.array([1])] * 2)
    write_cuhk_sysu(tmp_path, train, test, [both])
    loaded = load("cuhk-sysu", tmp_path, "train")
    assert loaded.frames[0].person_ids.tolist() == [4, 4, 5]
    assert loaded.notes == ["1 boxes are claimed by two people; the one named last has the box"]
    assert load("cuhk-sysu", tmp_path, "test").notes == [
        "2 boxes are claimed by two people; the one named last has the box"
    ]


def test_names_listed_twice(cuhk, prw):  # noqa: F811
    scipy.io.savemat(cuhk / "annotation/pool.mat", {"pool": cells("s3.jpg", "s4.jpg", "s3.jpg")})
    one_sentence(lambda: load("cuhk-sysu", cuhk, "test"), "pool.mat", "s3.jpg more than once")
    scipy.io.savemat(prw / "frame_test.mat", {"img_index_test": cells("c1s2_000200", "c1s2_000200")})
    one_sentence(lambda: load("prw", prw, "test"), "frame_test.mat", "c1s2_000200 more than once")
    root = hand_made_cuhk(cuhk.parent / "twice")
    images = scipy.io.loadmat(root / "annotation/Images.mat")["Img"]
    scipy.io.savemat(root / "annotation/Images.mat", {"Img": np.concatenate([images, images[:, :1]], axis=1)})
    one_sentence(lambda: load("cuhk-sysu", root, "train"), "Images.mat", "s2.jpg more than once")


@pytest.mark.parametrize("person", [np.nan, np.inf, 3.5])
def test_people_that_are_no_whole_number(prw, person):  # noqa: F811
    table = np.array([[9, 30, 20, 25, 60], [person, 1, 1, 9, 9]])
    scipy.io.savemat(prw / "annotations/c1s2_000200.jpg.mat", {"box_new": table})
    one_sentence(lambda: load("prw", prw, "test"), "row 2 of", "c1s2_000200.jpg.mat", f"{person:g}")


@pytest.mark.parametrize("box", ["30.0 20.0 inf 60.0", "30.0 nan 25.5 60.0", "-inf 20.0 inf 60.0"])
def test_query_boxes_that_are_not_finite(prw, box):  # noqa: F811
    (prw / "query_info.txt").write_bytes(f"9 {box} c1s2_000200\r\n".encode())
    one_sentence(lambda: load("prw", prw, "test"), "line 1 of", "query_info.txt", "not finite")


def test_annotated_boxes_that_are_not_finite(prw):  # noqa: F811
    table = np.array([[9, 30, 20, 25, 60], [-2, 1, 1, np.inf, 9]])
    scipy.io.savemat(prw / "annotations/c1s2_000200.jpg.mat", {"box_new": table})
    one_sentence(lambda: load("prw", prw, "test"), "c1s2_000200.jpg", "not finite", "--bad-boxes drop")
    assert len(load("prw", prw, "test", bad_boxes="drop").frames[0].boxes) == 1


def test_nobody_can_be_asked_for_who_has_no_identity(prw):  # noqa: F811
    (prw / "query_info.txt").write_bytes(b"-1 100.0 20.0 25.0 60.0 c1s2_000200\r\n")
    one_sentence(lambda: load("prw", prw, "test"), "line 1", "person -1", "remove that line")


# ------------------------------------------------------------------------------- boxes without area


@pytest.mark.parametrize("bad_boxes", ["raise", "drop"])
def test_a_bad_box_of_a_query_or_gallery_is_named_by_its_place_and_not_dropped(tmp_path, prw, bad_boxes):  # noqa: F811
    (prw / "query_info.txt").write_bytes(b"\r\n9 330.0 20.0 25.0 60.0 c1s2_000200\r\n")
    one_sentence(lambda: load("prw", prw, "test", bad_boxes), "line 2 of", "query_info.txt", "x=330")
    with pytest.raises(UserError) as caught:
        load("prw", prw, "test", bad_boxes)
    assert "drop" not in str(caught.value)
    test = [frame("s3.jpg", [[210, 10, 100, 50]], [9]), frame("s4.jpg", [[20, 10, 0, 50]], [9])]
    blank_images(tmp_path / "c/Image/SSM", test)
    for number, gallery in ((0, 1), (1, 0)):  # the bad box in the gallery, then in the query
        protocol = CuhkProtocol("train_test/TestG50.mat", "TestG50", [DrawnQuery(number, 0)], [np.array([gallery])])
        write_cuhk_sysu(tmp_path / "c", [], test, [protocol])
        if bad_boxes == "drop":
            one_sentence(lambda: load("cuhk-sysu", tmp_path / "c", "test", "drop").protocols["TestG50"],
                         "query 0 of", "TestG50.mat", "s4.jpg", "w=0")  # fmt: skip


def test_bad_boxes_can_be_dropped_from_the_command_line(tmp_path, capsys, monkeypatch):
    root = hand_made_prw(tmp_path / "prw")
    train = [frame("c1s1_000151.jpg", [[10, 5, 0, 50], [9, 9, 9, 9]], [482, 5], 1)]
    write_prw(root, train, [frame("c1s2_000200.jpg", [[30, 20, 25, 60]], [9], 1),
                            frame("c2s2_000200.jpg", [[30, 20, 25, 60]], [9], 2)], [DrawnQuery(0, 0)])  # fmt: skip
    describe = ["data", "describe", "--kind", "prw", "--data-root", str(root)]
    assert main(describe) == 2 and "--bad-boxes drop" in capsys.readouterr().err
    assert main([*describe, "--bad-boxes", "drop"]) == 0
    assert "note: train: 1 boxes without area inside their image were left out" in capsys.readouterr().out
    assert main([*describe, "--bad-boxes", "keep"]) == 2 and "--bad-boxes" in capsys.readouterr().err
    one_sentence(lambda: fingerprint(root), "--bad-boxes drop")
    one_sentence(lambda: open_run_data("prw", "paper", root), "--bad-boxes drop")
    data = open_run_data("prw", "paper", root, "drop")
    assert data.fingerprint == fingerprint(root, "drop") and data.train.person_ids.tolist() == [5]


@pytest.mark.parametrize("command", [["train", "alignps"], ["trial", "alignps"], ["evaluate", "{weights}"]])
def test_commands_pass_the_treatment_of_bad_boxes_on(tmp_path, monkeypatch, command):
    """A set with one bad box is refused, and with the option gets as far as the stand-in for the work."""
    asked = []

    def stop(*arguments):
        asked.append(arguments)
        raise KeyboardInterrupt

    for module in (commands, trials):
        monkeypatch.setattr(module, "open_run_data", stop)
    monkeypatch.setattr(commands, "load_model", lambda path: torch.nn.Identity())
    root = write_toy_set(tmp_path / "plain")
    for words, treatment in (([], "raise"), (["--bad-boxes", "drop"], "drop")):
        assert main([*command, "--data-root", str(root), *words]) == 130
        assert asked[-1][2:] == (root, treatment)
