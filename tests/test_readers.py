"""Both layouts: what the files hold to the letter, what the readers make of it, and every way to break a set."""

import threading

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from set_fixtures import blank_images, frame, hand_made_cuhk, hand_made_prw

from pslib.data import loading
from pslib.data.annotations import UNLABELLED
from pslib.data.layouts import CuhkProtocol, DrawnQuery, write_cuhk_sysu, write_prw
from pslib.data.loading import count, describe, load, read_ahead, read_image, training_labels, training_target
from pslib.data.matfile import read_mat
from pslib.data.paper_layout import make_thin
from pslib.data.protocol_file import read_protocol
from pslib.data.published import PUBLISHED
from pslib.errors import UserError


@pytest.fixture
def cuhk(tmp_path):
    return hand_made_cuhk(tmp_path / "cuhk")


@pytest.fixture
def prw(tmp_path):
    return hand_made_prw(tmp_path / "prw")


# ------------------------------------------------------------------------------- the files, read by scipy alone


def test_cuhk_files_have_the_released_shapes_and_types(cuhk):
    protocol = scipy.io.loadmat(cuhk / "annotation/test/train_test/TestG50.mat")["TestG50"]
    assert protocol.shape == (1, 1) and protocol.dtype.names == ("Query", "Gallery")
    query, gallery = protocol["Query"][0, 0], protocol["Gallery"][0, 0]
    assert query.shape == (1, 1) and query.dtype.names == ("imname", "idlocate", "ishard", "idname")
    assert gallery.shape == (1, 2) and gallery.dtype.names == ("imname", "idlocate", "ishard")
    assert query["idlocate"][0, 0].dtype == np.uint8 and query["idlocate"][0, 0].tolist() == [[210, 10, 100, 50]]
    assert query["idname"][0, 0].item() == "p9" and query["imname"][0, 0].item() == "s3.jpg"
    absent = gallery["idlocate"][0, 1]
    assert absent.shape == (1, 0) and absent.dtype == np.float64
    train = scipy.io.loadmat(cuhk / "annotation/test/train_test/Train.mat")["Train"]
    assert train.shape == (2, 1) and train.dtype == object
    scenes = train.squeeze()[1][0, 0][2].squeeze()  # field 2 of each struct: the person's scenes
    assert [str(name[0]) for name, _, _ in scenes] == ["s10.jpg", "s2.jpg"]
    images = scipy.io.loadmat(cuhk / "annotation/Images.mat")["Img"].squeeze()
    assert images.dtype.names == ("imname", "nAppear", "box") and len(images) == 6
    assert images[0]["box"].dtype.names == ("idlocate", "ishard")
    people = scipy.io.loadmat(cuhk / "annotation/Person.mat")["Person"].squeeze()
    assert [str(name.item()) for name in people["idname"]] == ["p3", "p7", "p9"]
    pool = scipy.io.loadmat(cuhk / "annotation/pool.mat")["pool"].squeeze()
    assert [str(name.item()) for name in pool] == ["s3.jpg", "s4.jpg", "s5.jpg"]
    for file, key in (("Occlusion", "Occlusion1"), ("Resolution", "Test_Size")):
        assert scipy.io.loadmat(cuhk / f"annotation/test/subset/{file}.mat")[key].shape == (1, 1)


def test_wide_boxes_are_uint16_and_narrow_ones_uint8(tmp_path):
    one = [frame("s1.jpg", [[300, 1, 5, 9], [3, 1, 5, 9]], [1, -1])]
    write_cuhk_sysu(tmp_path, one, [], [])
    boxes = scipy.io.loadmat(tmp_path / "annotation/Images.mat")["Img"]["box"][0, 0]["idlocate"][0]
    assert [box.dtype for box in boxes] == [np.uint16, np.uint8]


def test_prw_files_have_the_released_shapes_and_types(prw):
    assert (prw / "query_info.txt").read_bytes() == b"9 30.00 20.00 25.50 60.00 c1s2_000200\r\n"
    tables = [scipy.io.loadmat(path) for path in sorted((prw / "annotations").glob("*.mat"))]
    assert {key for table in tables for key in table if key[0] != "_"} == {"box_new", "anno_file", "anno_previous"}
    first = read_mat(prw / "annotations/c1s1_000151.jpg.mat", "box_new")
    assert first.dtype == np.float64 and first.tolist() == [[482, 10.5, 5, 20.25, 50], [-2, 60, 5, 20, 50]]
    names = scipy.io.loadmat(prw / "frame_test.mat")["img_index_test"]
    assert names.shape == (4, 1) and names[0, 0].item() == "c1s2_000200"
    assert scipy.io.loadmat(prw / "ID_train.mat")["ID_train"].tolist() == [[5, 482]]


# ------------------------------------------------------------------------------- what the readers make of them


def test_cuhk_training_images_are_sorted_and_boxes_do_not_overflow(cuhk):
    train = load("cuhk-sysu", cuhk, "train")
    assert [f.name for f in train.frames] == ["s2.jpg", "s6.jpg", "s10.jpg"]
    # 200 + 100 is 300, not the 44 that uint8 arithmetic gives
    assert train.frames[0].boxes.tolist() == [[200, 10, 300, 60], [0, 0, 20, 40]]
    assert train.frames[0].boxes.dtype == np.float32
    assert [f.person_ids.tolist() for f in train.frames] == [[7, UNLABELLED], [], [7, 3]]
    assert train.frames[1].boxes.shape == (0, 4)
    assert training_labels(train) == {3: 0, 7: 1}


def test_cuhk_protocols_and_test_identities(cuhk):
    test = load("cuhk-sysu", cuhk, "test")
    assert [f.name for f in test.frames] == ["s3.jpg", "s4.jpg", "s5.jpg"]
    assert [f.person_ids.tolist() for f in test.frames] == [[9, UNLABELLED], [9], [UNLABELLED]]
    assert list(test.protocols) == ["TestG50", "Occlusion", "Resolution"] and len(test.protocols) == 3
    protocol = test.protocols["TestG50"]
    assert protocol is test.protocols["TestG50"]  # read once
    assert (protocol.queries[0].frame, protocol.queries[0].person_id) == (0, 9)
    assert protocol.queries[0].box.tolist() == [210, 10, 310, 60]
    gallery = protocol.galleries[0]
    assert gallery.frames.tolist() == [1, 2] and gallery.positive_frames.tolist() == [1]
    assert gallery.positive_boxes.tolist() == [[20, 10, 50, 60]]


def test_cuhk_repeated_images_and_the_query_itself_stay_in_the_gallery(tmp_path):
    test = load("cuhk-sysu", hand_made_cuhk(tmp_path / "odd", gallery=(0, 1, 1, 2)), "test")
    gallery = test.protocols["TestG50"].galleries[0]
    assert gallery.frames.tolist() == [0, 1, 1, 2] and gallery.positive_frames.tolist() == [0, 1, 1]


def test_prw_reader(prw):
    train, test = load("prw", prw, "train"), load("prw", prw, "test")
    assert [f.camera for f in train.frames] == [1, 6]
    assert train.frames[0].boxes.tolist() == [[10.5, 5, 30.75, 55], [60, 5, 80, 55]]
    assert train.frames[0].person_ids.tolist() == [482, UNLABELLED]
    assert training_labels(train) == {5: 0, 482: 1}
    # corners first, then the cut: [-3, 20, 25, 60] ends at 22, not at 25
    assert test.frames[1].boxes.tolist() == [[0, 20, 22, 80], [8, 20, 33, 80]]
    assert test.frames[2].boxes.tolist() == [[300, 20, 320, 80]]  # the image is 320 wide
    assert test.notes == ["2 boxes reached over the edge of their image and were cut there"]
    regular, cross = test.protocols["regular"], test.protocols["cross-camera"]
    assert regular.galleries[0].frames.tolist() == [1, 2, 3]
    assert regular.galleries[0].positive_frames.tolist() == [1, 2]
    assert regular.galleries[0].positive_boxes[0].tolist() == [0, 20, 22, 80]  # the first of two boxes
    assert cross.galleries[0].frames.tolist() == [1, 3] and cross.galleries[0].positive_frames.tolist() == [1]
    assert regular.queries[0].box.tolist() == [30, 20, 55.5, 80]
    with pytest.raises(KeyError):
        test.protocols["TestG50"]


@pytest.mark.parametrize("ending", ["\r\n", "\n", "\r\n\r\n"])
def test_query_list_reads_with_any_line_ends(prw, ending):
    line = "9 30.00 20.00 25.50 60.00 c1s2_000200"
    (prw / "query_info.txt").write_bytes(f"{line}{ending}{line}".encode())
    queries = load("prw", prw, "test").protocols["regular"].queries
    assert [q.person_id for q in queries] == [9, 9] and queries[1].box.tolist() == [30, 20, 55.5, 80]


def test_a_person_seen_by_one_camera_has_no_cross_camera_query(tmp_path):
    test = [frame(f"c1s1_00000{i}.jpg", [[1, 1, 10, 20]], [4], 1) for i in range(2)]
    test += [frame("c2s1_000001.jpg", [], [], 2)]
    blank_images(tmp_path / "frames", test)
    write_prw(tmp_path, test, test, [DrawnQuery(0, 0)])
    protocols = load("prw", tmp_path, "test").protocols
    assert len(protocols["regular"].queries) == 1 and len(protocols["cross-camera"].queries) == 0


def test_training_targets_keep_unlabelled_people(cuhk):
    train = load("cuhk-sysu", cuhk, "train")
    targets = [training_target(f, training_labels(train)) for f in train.frames]
    assert [t["labels"].tolist() for t in targets] == [[1, UNLABELLED], [], [1, 0]]
    assert targets[1]["boxes"].shape == (0, 4) and targets[0]["boxes"].dtype == torch.float32
    image = read_image(train.frames[0].path)
    assert image.shape == (3, 144, 320) and image.dtype == torch.uint8


def test_unmatched_labelled_boxes_are_counted_not_hidden(cuhk):
    train = [frame("s10.jpg", [[21, 10, 30, 50]], [7]), frame("s2.jpg", [[1, 1, 5, 5]], [7])]
    keep = (cuhk / "annotation/Images.mat").read_bytes()
    write_cuhk_sysu(cuhk, train, [], [])
    (cuhk / "annotation/Images.mat").write_bytes(keep)
    notes = load("cuhk-sysu", cuhk, "train").notes
    assert notes == ["2 labelled boxes equal no box of Images.mat and were left out"]


def test_bad_boxes_can_be_dropped(prw):
    write_prw(prw, [frame("c1s1_000151.jpg", [[10, 5, 0, 50], [9, 9, 9, 9]], [482, 5], 1)], [], [])
    train = load("prw", prw, "train", bad_boxes="drop")
    assert train.frames[0].person_ids.tolist() == [5]
    assert train.notes == ["1 boxes without area inside their image were left out"]


# ------------------------------------------------------------------------------- counts


def test_describe_names_agreements_and_disagreements(cuhk):
    table = describe(load("cuhk-sysu", cuhk, "train"), load("cuhk-sysu", cuhk, "test"))
    assert "AlignPS paper, sec. IV-A: 11,206 DISAGREES by -11,203" in table
    assert "IAN paper, sec. V: 99,809 DISAGREES" in table and "queries" in table


def test_published_counts_add_up():
    for kind, what in (("cuhk-sysu", "images"), ("cuhk-sysu", "boxes"), ("prw", "images"), ("prw", "boxes")):
        parts = [next(iter(PUBLISHED[kind, split, what].values())) for split in ("train", "test")]
        assert sum(parts) == next(iter(PUBLISHED[kind, "both", what].values()))
    assert 14_907 + 19_127 == PUBLISHED["prw", "both", "labelled boxes"]["counted in the AlignPS annotations"]


def test_thin_sets_load_with_their_counts(tmp_path):
    manifests = make_thin(tmp_path, shrink=100, gallery_sizes=(20, 50))
    for kind, images in (("cuhk-sysu", (112, 69)), ("prw", (57, 61))):
        splits = [load(kind, tmp_path / kind, split) for split in ("train", "test")]
        assert tuple(len(s.frames) for s in splits) == images
        wanted = manifests[kind]["counts"]
        assert [count(s)["boxes"] for s in splits] == [wanted["train"]["boxes"], wanted["test"]["boxes"]]
        assert count(splits[1])["queries"] == wanted["test"]["queries"]
        assert "DISAGREES" not in describe(*splits) and "drawn, profile paper-layout" in describe(*splits)
    before = (tmp_path / "prw/frame_test.mat").stat().st_mtime_ns
    make_thin(tmp_path, shrink=100, gallery_sizes=(20, 50))
    assert (tmp_path / "prw/frame_test.mat").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/prw").mkdir()
    (tmp_path / "mine/prw/thesis.txt").write_text("precious")
    one_sentence(lambda: make_thin(tmp_path / "mine", only="prw", shrink=100), "mine", "--out")
    assert (tmp_path / "mine/prw/thesis.txt").exists()


# ------------------------------------------------------------------------------- bad input


def one_sentence(action, *words):
    """The action fails with one sentence that names these words and ends in a remedy."""
    with pytest.raises(UserError) as caught:
        action()
    said = str(caught.value)
    assert "\n" not in said and said.endswith(".") and ":" in said, said
    for word in words:
        assert word in said, (word, said)


@pytest.mark.parametrize("kind, file, split", [
    ("cuhk-sysu", "annotation/pool.mat", "train"),
    ("cuhk-sysu", "annotation/test/train_test/Train.mat", "train"),
    ("cuhk-sysu", "Image/SSM/s10.jpg", "train"),
    ("prw", "annotations/c1s2_000200.jpg.mat", "test"),
    ("prw", "frame_test.mat", "test"),
    ("prw", "query_info.txt", "test"),
    ("prw", "frames/c6s1_000001.jpg", "train"),
])  # fmt: skip
def test_missing_files(tmp_path, kind, file, split):
    root = (hand_made_cuhk if kind == "cuhk-sysu" else hand_made_prw)(tmp_path / kind)
    (root / file).unlink()
    one_sentence(lambda: load(kind, root, split), file.split("/")[-1], "missing")


def test_no_protocol_file_at_all(cuhk):
    (cuhk / "annotation/test/train_test/TestG50.mat").unlink()
    one_sentence(lambda: load("cuhk-sysu", cuhk, "test"), "TestG")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("file", ["annotation/Images.mat", "annotation/test/train_test/TestG50.mat"])
def test_truncated_matlab_files(cuhk, file, share):
    content = (cuhk / file).read_bytes()
    (cuhk / file).write_bytes(content[: int(share * len(content))])
    one_sentence(lambda: load("cuhk-sysu", cuhk, "test"), file.split("/")[-1])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(128, 700), value=st.integers(0, 255))
def test_a_damaged_protocol_reads_as_it_was_or_fails_in_one_sentence(cuhk, place, value):
    content = bytearray((cuhk / "annotation/test/train_test/TestG50.mat").read_bytes())
    content[place % (len(content) - 128) + 128] = value
    damaged = cuhk / "damaged.mat"
    damaged.write_bytes(content)
    try:
        rows = list(read_protocol(damaged, "TestG50"))
    except UserError as error:
        assert "damaged.mat" in str(error)
    else:
        assert [row.gallery for row in rows] == [["s4.jpg", "s5.jpg"]]


def test_matlab_file_without_its_key(cuhk, prw):
    scipy.io.savemat(cuhk / "annotation/pool.mat", {"pond": np.zeros(3)})
    one_sentence(lambda: load("cuhk-sysu", cuhk, "train"), "pool.mat", "no variable pool", "pond")
    scipy.io.savemat(prw / "annotations/c1s2_000200.jpg.mat", {"boxes": np.zeros((1, 5))})
    one_sentence(lambda: load("prw", prw, "test"), "c1s2_000200.jpg.mat", "box_new or anno_file or anno_previous")


def test_table_of_another_shape(prw):
    scipy.io.savemat(prw / "annotations/c1s2_000200.jpg.mat", {"box_new": np.zeros((3, 4))})
    one_sentence(lambda: load("prw", prw, "test"), "c1s2_000200.jpg.mat", "(3, 4)")
    scipy.io.savemat(prw / "annotations/c1s2_000200.jpg.mat", {"box_new": np.zeros((0, 0))})
    assert len(load("prw", prw, "test").frames[0].boxes) == 0


def test_images_that_do_not_decode(cuhk):
    path = cuhk / "Image/SSM/s3.jpg"
    whole = path.read_bytes()
    path.write_bytes(b"this is a letter, not a picture")
    one_sentence(lambda: read_image(path), "s3.jpg", "does not decode")
    one_sentence(lambda: load("cuhk-sysu", cuhk, "test"), "s3.jpg", "does not decode")
    path.write_bytes(whole[: len(whole) // 2])
    one_sentence(lambda: read_image(path), "s3.jpg", "does not decode")
    path.write_bytes(b"")
    one_sentence(lambda: read_image(path), "s3.jpg")
    path.unlink()
    one_sentence(lambda: read_image(path), "s3.jpg", "missing")


def test_images_read_ahead_stand_in_order_and_a_bad_one_ends_at_its_place(tmp_path):
    for number in range(7):
        Image.fromarray(np.full((4, 6, 3), 30 * number, np.uint8)).save(tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(7)]
    for ahead in (1, 3, 20):
        found = list(read_ahead(paths, ahead))
        assert all(torch.equal(image, read_image(path)) for image, path in zip(found, paths, strict=True))
    assert list(read_ahead([], 2)) == []
    paths[4].write_bytes(b"")
    images = read_ahead(paths, 3)
    assert [int(next(images)[0, 0, 0]) for _ in range(4)] == [0, 30, 60, 90]
    one_sentence(lambda: next(images), "4.png", "does not decode")


def test_images_are_read_while_the_caller_works_and_no_further_ahead_than_asked(monkeypatch):
    begun, third = [], threading.Event()

    def slow(path):
        begun.append(path)
        if path == 3:
            third.set()
        return torch.zeros(1)

    monkeypatch.setattr(loading, "read_image", slow)
    images = read_ahead(range(1, 10), 2)
    next(images)
    assert third.wait(timeout=60), "image 3 was not read while the caller held image 1"
    assert max(begun) == 3
    images.close()
    assert max(begun) == 3


@pytest.mark.parametrize("box", [[10, 10, 0, 20], [10, 10, 20, 0], [400, 10, 20, 20], [10, 150, 20, 20]])
def test_boxes_without_area_in_their_image(tmp_path, cuhk, prw, box):
    write_prw(prw, [frame("c1s1_000151.jpg", [box], [482], 1)], [], [])
    one_sentence(lambda: load("prw", prw, "train"), "c1s1_000151.jpg", f"w={box[2]}", "320x144", "drop")
    write_cuhk_sysu(cuhk, [frame("s10.jpg", [box], [7])], [], [])
    one_sentence(lambda: load("cuhk-sysu", cuhk, "train"), "s10.jpg", f"x={box[0]}", "320x144")


def test_negative_width_in_prw(prw):
    write_prw(prw, [frame("c1s1_000151.jpg", [[40, 10, -20, 30]], [482], 1)], [], [])
    one_sentence(lambda: load("prw", prw, "train"), "w=-20")


def test_query_boxes_are_checked_too(prw):
    (prw / "query_info.txt").write_bytes(b"9 330.0 20.0 25.0 60.0 c1s2_000200\r\n")
    one_sentence(lambda: load("prw", prw, "test"), "c1s2_000200.jpg", "x=330")


def test_queries_whose_person_never_appears(tmp_path, prw):
    (prw / "query_info.txt").write_bytes(b"77 30.0 20.0 25.0 60.0 c1s2_000200\r\n")
    one_sentence(lambda: load("prw", prw, "test"), "line 1", "77", "no test frame")
    alone = [frame("c1s1_000001.jpg", [[1, 1, 10, 20]], [4], 1), frame("c2s1_000001.jpg", [], [], 2)]
    blank_images(tmp_path / "alone/frames", alone)
    write_prw(tmp_path / "alone", alone, alone, [DrawnQuery(0, 0)])
    one_sentence(lambda: load("prw", tmp_path / "alone", "test").protocols["regular"], "person 4", "no other test")
    cuhk = hand_made_cuhk(tmp_path / "nowhere", gallery=(2,))
    one_sentence(lambda: load("cuhk-sysu", cuhk, "test").protocols["TestG50"], "p9", "none of its 1")


def test_empty_galleries(tmp_path):
    cuhk = hand_made_cuhk(tmp_path / "empty", gallery=())
    one_sentence(lambda: load("cuhk-sysu", cuhk, "test").protocols["TestG50"], "p9", "empty gallery")
    one = [frame(f"c1s1_00000{i}.jpg", [[1, 1, 10, 20]], [4], 1) for i in range(2)]
    blank_images(tmp_path / "one/frames", one)
    write_prw(tmp_path / "one", one, one, [DrawnQuery(0, 0)])
    one_sentence(lambda: load("prw", tmp_path / "one", "test").protocols["cross-camera"], "cross-camera", "empty")


def test_gallery_and_pool_of_different_copies(cuhk):
    test = [frame("s4.jpg", [[20, 10, 30, 50]], [9]), frame("s3.jpg", [[210, 10, 100, 50]], [9])]
    protocol = CuhkProtocol("train_test/TestG50.mat", "TestG50", [DrawnQuery(0, 0)], [np.array([1])])
    old_pool = [frame("s4.jpg", [], [])]
    write_cuhk_sysu(cuhk, [], test, [protocol])
    keep = {f: (cuhk / f).read_bytes() for f in ("annotation/Images.mat", "annotation/test/train_test/TestG50.mat")}
    write_cuhk_sysu(cuhk, [], old_pool, [])
    for file, content in keep.items():
        (cuhk / file).write_bytes(content)
    one_sentence(lambda: load("cuhk-sysu", cuhk, "test").protocols["TestG50"], "s3.jpg", "pool.mat")
    write_cuhk_sysu(cuhk, [], [frame("s99.jpg", [], [])], [])
    (cuhk / "annotation/Images.mat").write_bytes(keep["annotation/Images.mat"])
    one_sentence(lambda: load("cuhk-sysu", cuhk, "test"), "s99.jpg", "Images.mat")


@pytest.mark.parametrize("line, word", [
    (b"nine 1 2 3 4 c1s2_000200", "line 1"),
    (b"9 1 2 3", "line 1"),
    (b"9 1 2 3 4 c1s2_999999", "c1s2_999999"),
    (b"", "lists no query"),
])  # fmt: skip
def test_broken_query_lists(prw, line, word):
    (prw / "query_info.txt").write_bytes(line + b"\r\n")
    one_sentence(lambda: load("prw", prw, "test"), word)


def test_frames_without_a_camera_in_their_name(prw):
    train = [frame("street.jpg", [[1, 1, 9, 9]], [3])]
    blank_images(prw / "frames", train)
    write_prw(prw, train, [], [])
    one_sentence(lambda: load("prw", prw, "train"), "street")


def test_roots_of_another_set_and_unknown_names(cuhk, prw, tmp_path):
    one_sentence(lambda: load("cuhk-sysu", prw, "train"), str(prw), "holds a prw set")
    one_sentence(lambda: load("prw", cuhk, "train"), str(cuhk), "holds a cuhk-sysu set")
    one_sentence(lambda: load("prw", tmp_path, "train"), "frame_test.mat", "no prw root")
    one_sentence(lambda: load("prw", tmp_path / "nowhere", "train"), "nowhere", "no folder")
    one_sentence(lambda: load("market", prw, "train"), "market", "cuhk-sysu or prw")
    one_sentence(lambda: load("prw", prw, "dev"), "dev")
    one_sentence(lambda: load("prw", prw, "train", bad_boxes="keep"), "keep")


def test_a_validation_set_has_no_training_images(cuhk):
    write_cuhk_sysu(cuhk, [], [frame("s3.jpg", [], [])], [])
    one_sentence(lambda: load("cuhk-sysu", cuhk, "train"), "no image in its train split")


def test_a_folder_in_the_place_of_a_file(cuhk):
    (cuhk / "annotation/pool.mat").unlink()
    (cuhk / "annotation/pool.mat").mkdir()
    one_sentence(lambda: load("cuhk-sysu", cuhk, "test"), "pool.mat")


# ------------------------------------------------------------------------------- the fast protocol reader


@pytest.mark.parametrize("compress", [True, False])
def test_protocol_reader_agrees_with_scipy_on_files_scipy_wrote(tmp_path, compress):
    """scipy writes text in UTF-8, small elements in four bytes, empty arrays in its own way."""
    rng = np.random.default_rng(0)
    rows = np.empty((1, 5), [("Query", object), ("Gallery", object)])
    for index in range(5):
        query = np.empty((1, 1), [("imname", object), ("idlocate", object), ("ishard", object), ("idname", object)])
        query[0, 0] = (f"s{index}.jpg", rng.integers(1, 900, (1, 4)).astype("u2"), np.uint8([[1]]), f"p{index}")
        gallery = np.empty((1, 6), [("imname", object), ("idlocate", object), ("ishard", object)])
        for place in range(6):
            box = rng.integers(1, 200, (1, 4)).astype(("u1", "u2", "f8")[place % 3]) if place < 3 else np.empty((1, 0))
            gallery[0, place] = (f"s{rng.integers(9999)}.jpg", box, np.uint8([[0]]))
        rows[0, index] = (query, gallery)
    path = tmp_path / "TestG6.mat"
    scipy.io.savemat(path, {"other": np.ones(3), "TestG6": rows}, do_compression=compress)
    read = list(read_protocol(path, "TestG6"))
    for row, ours in zip(scipy.io.loadmat(path)["TestG6"].ravel(), read, strict=True):
        query, gallery = row["Query"].ravel()[0], row["Gallery"].ravel()
        assert (ours.image, ours.person) == (query["imname"].item(), query["idname"].item())
        assert ours.box.tolist() == query["idlocate"][0].tolist()
        assert ours.gallery == [scene["imname"].item() for scene in gallery]
        for scene, box in zip(gallery, ours.boxes, strict=True):
            assert (box is None) == (scene["idlocate"].size == 0)
            assert box is None or box.tolist() == scene["idlocate"][0].tolist()


def test_protocol_reader_says_what_is_wrong(cuhk, tmp_path):
    good = cuhk / "annotation/test/train_test/TestG50.mat"
    one_sentence(lambda: list(read_protocol(good, "TestG100")), "TestG50.mat", "no variable TestG100")
    one_sentence(lambda: list(read_protocol(cuhk / "annotation/Images.mat", "Img")), "Images.mat", "no protocol")
    one_sentence(lambda: list(read_protocol(tmp_path / "none.mat", "TestG50")), "none.mat", "missing")
