"""The query browser after every change: picture, strip, query and results belong together, also after a refusal."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_sets import toy_source, toy_split, write_toy_set

from pslib.data.loading import load
from pslib.viz.browser_input import open_picture
from pslib.viz.browser_query import people_in
from pslib.viz.browser_search import Search
from pslib.viz.browser_widget import browse


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two sets of eight frames, "one" and "two", with different pictures of four people."""
    other = load("cuhk-sysu", write_toy_set(tmp_path_factory.mktemp("other"), seed=1), "test")
    return {"one": toy_source(toy_split("test")), "two": toy_source(other)}


@pytest.fixture
def widget(sources):
    return browse(sources)


@pytest.fixture
def mine(tmp_path):
    """Path of a picture of one's own."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)).save(tmp_path / "mine.png")
    return str(tmp_path / "mine.png")


def event(widget, **content):
    widget.picker._handle_custom_msg(content, [])
    return widget.note.value


def names(widget):
    return [item["name"] for item in widget.picker.items]


@pytest.mark.parametrize("mode", ["own image", "frame"])
def test_another_set_leaves_nothing_of_the_one_before(widget, mode):
    assert widget.shown["ranking"].value and widget.picker.people
    widget.mode.value = mode
    widget.set.value = "two"
    assert widget.query is None and not any(picture.value for picture in widget.shown.values())
    assert "Click a person to search" in widget.told.value
    if mode == "frame":
        assert widget.picker.alt.startswith(f"frame {widget.source.data.frames[0].name} with ")
        return
    assert widget.picker.image == "" and not widget.picker.people and not widget.picker.items
    assert "no image of your own" in widget.note.value
    for click in ({"kind": "box", "box": [2, 2, 30, 60]}, {"kind": "point", "x": 5.0, "y": 5.0}):
        assert "no picture is open to choose a person in" in event(widget, **click)
    assert widget.query is None


def test_another_set_begins_its_list_anew(widget):
    widget.mode.value, widget.number.value = "frame", 3
    widget.set.value = "two"
    assert widget.number.value == 0 and widget.frame == 0
    assert browse(widget.sources, number=2).number.value == 2


def test_the_hardest_are_those_of_model_gallery_and_threshold(sources):
    """The strip follows them, the query stays as she is and marked where she now stands."""
    galleries = {}
    for model, kept in sources["one"].galleries.items():  # every annotated box is found, the later the surer
        scores = np.linspace(0, 1, len(kept.ground_truth.scores))
        galleries[model] = replace(kept, detections=replace(kept.ground_truth, scores=scores))
    widget, seen = browse({"one": replace(sources["one"], galleries=galleries)}), []
    event(widget, kind="item", index=1)
    asked, (frame, row) = widget.query.name, (widget.items[1].frame, widget.items[1].row)
    for model, gallery, threshold in (("first", "TestG50", 0.2), ("second", "TestG50", 0.2), ("second", "TestG50", 0.7),
                                      ("first", "Occlusion", 0.7), ("first", "TestG50", 0.2)):  # fmt: skip
        widget.model.value, widget.gallery.value, widget.threshold.value = model, gallery, threshold
        hardest = Search(widget.source, gallery, "all", threshold).hardest(model)[:7]
        seen.append([f"AP {ap:.2f}" for *_, ap in hardest])
        assert names(widget) == seen[-1]
        assert [(item.frame, item.row) for item in widget.items] == [(frame, row) for frame, row, _ in hardest]
        assert widget.query.name == asked and widget.frame == frame
        places = [(item.frame, item.row) for item in widget.items]
        assert widget.picker.item == (places.index((frame, row)) if (frame, row) in places else -1)
    assert len({str(one) for one in seen[:4]}) == 4


def test_a_gallery_without_queries_is_searched_and_has_no_hardest(widget):
    asked = widget.query.name
    widget.gallery.value = "all frames"
    assert "all frames has no list of queries" in widget.note.value and not widget.picker.items
    assert widget.query.name == asked and "gallery all frames" in widget.shown["ranking"].value
    widget.gallery.value = "TestG50"
    assert widget.note.value == "" and widget.picker.items and "gallery TestG50" in widget.shown["ranking"].value


def test_a_set_without_protocols_has_frames_and_people_and_no_hardest(sources):
    bare = replace(sources["one"], data=replace(sources["one"].data, protocols={}))
    widget = browse(sources | {"bare": bare})
    widget.set.value = "bare"
    assert "all frames has no list of queries: choose people by frame or identity." in widget.note.value
    for mode in ("frame", "identity"):
        widget.mode.value = mode
        assert widget.note.value == "" and widget.picker.items


def test_a_refused_list_leaves_no_thumbnails_of_another(widget):
    widget.mode.value = "identity"
    widget.number.value = 10_000
    assert "there is no person 10000" in widget.note.value and not widget.picker.items and not widget.items
    widget.number.value = 0
    assert widget.note.value == "" and widget.picker.items


def test_a_lower_threshold_and_another_model_look_again_at_ones_own_picture(widget, mine):
    widget.mode.value, widget.threshold.value = "own image", 1.0
    widget.file.value = mine
    assert "detects nobody in mine.png at threshold 1.00" in widget.note.value and not widget.picker.people
    for model, threshold in (("first", 0.0), ("second", 0.0), ("second", 0.6)):
        widget.model.value, widget.threshold.value = model, threshold
        assert widget.picker.people == people_in(open_picture(mine), widget.source, model, threshold)
        assert widget.picker.alt.startswith(f"mine.png with {len(widget.picker.people)} detected boxes")
    widget.threshold.value = 0.0
    assert widget.note.value == "" and widget.picker.people


def test_ones_own_picture_and_what_was_asked_in_it_are_there_again(widget, mine):
    """After a look at frames, after a path that is none, and in another set."""
    widget.mode.value, widget.file.value = "own image", mine
    event(widget, kind="box", box=[10, 5, 40, 60])
    assert "a box in mine.png" in widget.shown["ranking"].value
    widget.mode.value = "hardest first"
    assert "mine.png" not in widget.shown["ranking"].value + widget.picker.alt
    widget.mode.value = "own image"
    assert widget.note.value == "" and widget.picker.alt == f"{shown(widget)}; the query is a box in mine.png"
    assert widget.picker.drawn == [10, 5, 40, 60] and "a box in mine.png" in widget.shown["ranking"].value
    widget.file.value = f"{mine}.none"
    assert "there is no file" in widget.note.value and widget.picker.alt.startswith("mine.png")
    widget.set.value = "two"
    assert widget.picker.people == people_in(open_picture(mine), widget.sources["two"], "first", 0.2)
    assert widget.picker.drawn == [10, 5, 40, 60] and "a box in mine.png" in widget.shown["ranking"].value


def test_a_file_and_an_upload_can_be_opened_again_after_the_other(widget, mine):
    uploaded = {"name": "sent.png", "type": "image/png", "size": 1, "content": memoryview(Path(mine).read_bytes()),
                "last_modified": datetime(2024, 1, 1, tzinfo=UTC)}  # fmt: skip
    widget.mode.value = "own image"
    for _ in range(2):
        widget.file.value = mine
        assert widget.picker.alt.startswith("mine.png with ") and widget.upload.value == ()
        widget.upload.value = (uploaded,)
        assert widget.picker.alt.startswith("sent.png with ") and widget.file.value == ""


def shown(widget):
    return f"mine.png with {len(widget.picker.people)} detected boxes to choose from; or drag a box"


def test_after_a_mistake_no_curve_of_another_query_stays(widget):
    assert widget.shown["growth"].value
    widget.camera.value = "other"
    assert "does not know its cameras" in widget.note.value
    assert widget.shown["ranking"].value == "" and widget.shown["growth"].value == ""
    widget.camera.value = "all"
    assert widget.shown["growth"].value


def test_next_goes_on_by_what_is_shown_and_ends_with_the_list(widget):
    """One person, or seven frames of the eight; past the end the number stays, so previous steps back from there."""
    for mode, stride, total in (("identity", 1, 4), ("frame", 7, 8)):
        widget.mode.value = mode
        assert len(widget.source.data.person_ids if mode == "identity" else widget.source.data.frames) == total
        last = (total - 1) // stride
        for step in range(1, last + 1):
            widget.more.click()
            assert widget.number.value == step * stride and widget.note.value == "" and widget.picker.items
        before = names(widget)
        widget.more.click()
        assert f"the list ends here: it has {total} in all" in widget.note.value
        assert widget.number.value == last * stride and names(widget) == before
        widget.back.click()
        assert widget.number.value == (last - 1) * stride and widget.note.value == ""
        widget.number.value = 10_000
        widget.back.click()
        assert widget.number.value == total - stride and widget.note.value == "" and widget.picker.items
        widget.number.value = 0
        widget.back.click()
        assert widget.number.value == 0


def test_ones_own_pictures_have_no_list_to_page_through(widget):
    widget.mode.value = "own image"
    assert all(control.disabled for control in (widget.number, widget.back, widget.more, widget.boxes))
    widget.mode.value = "frame"
    assert not any(control.disabled for control in (widget.number, widget.back, widget.more, widget.boxes))
