"""The query browser without a page: its pictures and alt texts, what it accepts, and the widget driven by events."""

import io

import numpy as np
import pytest
from PIL import Image
from toy_sets import toy_source, toy_split

from pslib.data.redraw import what_ifs
from pslib.data.scenes import VIEWS, sample_person, sample_scene
from pslib.errors import UserError
from pslib.evaluation.ranking import Missed, Ranking
from pslib.viz import browser as draw
from pslib.viz.browser_input import MAX_PIXELS, box_in_image, data_uri, open_picture
from pslib.viz.browser_query import people_of, query_in_frame, query_in_picture
from pslib.viz.browser_search import FACTORS, Search, failure_rows, inside_of, what_if
from pslib.viz.browser_widget import browse
from pslib.viz.figures import figure_html
from pslib.viz.montage import STYLES, Tile, crop_in_context, sheet


@pytest.fixture(scope="module")
def source():
    """The toy test frames under two models."""
    return toy_source(toy_split("test"))


@pytest.fixture
def asked(source):
    search = Search(source, "TestG50", "all", 0.0)
    frame, row, _ = search.hardest("first")[0]
    return search, query_in_frame(source.data, frame, source.data.frames[frame].boxes[row].tolist(), row)


def texts(fig):
    return [text.get_text() for ax in fig.axes for text in ax.texts]


# ---- pictures ----

def test_every_verdict_has_its_own_colour_line_and_word():
    crop, box = crop_in_context(np.zeros((50, 50, 3), np.uint8), (10, 10, 20, 40))
    fig = sheet([("heading", [Tile(crop, box, verdict, ("line",)) for verdict in STYLES])], columns=3)
    shown = texts(fig)
    for color, _, mark, word in STYLES.values():
        assert f"{mark} {word}".strip() in shown
        assert any(text.get_color() == color for ax in fig.axes for text in ax.texts)
    for part in (0, slice(1, None)):  # colour alone tells them apart, and so do line, mark and word without it
        assert len({style[part] for style in STYLES.values()}) == len(STYLES)
    assert shown[0] == "heading" and shown.count("line") == len(STYLES)


@pytest.mark.parametrize("box", [(0, 0, 5, 9), (90, 50, 96, 64), (0, 0, 96, 64), (40, 0, 44, 64), (-3, -3, 4, 5)])
def test_crop_stays_inside_its_image_and_holds_the_box(box):
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    crop, inside = crop_in_context(image, box, shape=(60, 70))
    assert crop.shape == (60, 70, 3)
    x1, y1, x2, y2 = inside
    assert x2 > x1 and y2 > y1
    if box[0] >= 0 and (box[2] - box[0]) < 90:
        assert x1 >= -0.5 and y1 >= -0.5 and x2 <= 70.5 and y2 <= 60.5


def test_gallery_states_query_ranks_and_verdicts(asked):
    search, query = asked
    ranking = search.rank(query, "first")
    fig, alt = draw.gallery_figure(ranking, search.detections("first"), search.source.data, query="query: her")
    assert alt.startswith("query: her; ranks 1 to 10: " + ", ".join(ranking.verdict[:10]))
    assert f"average precision {ranking.ap:.2f}" in alt
    assert f"of {ranking.positives} true matches outside the first 10." in alt
    row = ranking.detection[0]
    shown = texts(fig)
    assert f"rank 1, similarity {ranking.similarity[0]:.2f}" in shown
    assert search.source.data.frames[search.detections("first").frame[row]].name in shown
    assert "<img" in figure_html(fig, alt)


@pytest.mark.parametrize("count", [3, 10])
def test_tiles_are_the_ranks_that_the_alt_text_counts(asked, count):
    search, query = asked
    ranking = search.rank(query, "first")
    fig, alt = draw.gallery_figure(ranking, search.detections("first"), search.source.data, query="her", count=count)
    ranks = [int(text.split()[1].strip(",")) for text in texts(fig) if text.startswith("rank ")]
    assert ranks == list(range(1, count + 1)) and f"ranks 1 to {count}: {', '.join(ranking.verdict[:count])};" in alt
    with pytest.raises(TypeError, match="start"):  # a list that begins later had this alt text, too
        draw.gallery_figure(ranking, search.detections("first"), search.source.data, query="her", start=5)


def test_comparison_has_a_row_for_each_model(asked):
    search, query = asked
    names = ("first", "second")
    fig, alt = draw.comparison_figure({name: search.rank(query, name) for name in names},
                                      {name: search.detections(name) for name in names}, search.source.data,
                                      query="her")
    assert [text for text in texts(fig) if "average precision" in text][0].startswith("first: ")
    assert "by 2 models. first; ranks 1 to 5" in alt and "second; ranks 1 to 5" in alt


def test_growth_ends_at_the_average_precision(asked):
    search, query = asked
    ranking = search.rank(query, "first")
    _, alt = draw.ap_figure(ranking, len(ranking))
    assert f"after the whole list {ranking.running_ap[-1]:.2f}" in alt
    assert f"{ranking.verdict.count('right')} right matches" in alt
    assert draw.ap_figure(ranking, 1)[1].startswith("Average precision after 1 ranks")


def test_unknown_person_has_no_verdict_and_no_curve(source):
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    search = Search(source, threshold=0.0)
    query = query_in_picture(picture, (10, 5, 30, 50), "mine.png")
    ranking = search.rank(query, "first")
    _, alt = draw.gallery_figure(ranking, search.detections("first"), source.data, query=query.name)
    assert "right" not in alt.split(";")[1] and "nobody knows who this is" in alt
    assert draw.ap_figure(ranking, 5)[1].startswith("No curve")
    assert "nobody knows" in draw.outcome_html(ranking, source.data).lower()


def test_missed_matches_are_listed_with_their_reasons(asked):
    search, query = asked
    blind = Search(search.source, search.gallery, "all", 1.0)
    html = blind.summary(query, blind.rank(query, "first"), "first")
    missed = blind.rank(query, "first").missed
    assert missed and all(one.reason in html for one in missed) and "threshold 1.00" in html
    assert "True matches outside the first 10" in html


def test_a_true_match_far_down_the_list_is_outside_and_not_lost(source):
    far = [Missed(1, (0, 0, 1, 1), "ranked at 6", 6), Missed(2, (0, 0, 1, 1), "ranked at 9", 9)]
    ranking = Ranking(np.arange(9), np.linspace(1, 0, 9), ["wrong"] * 9, 0.25, 2, 3, far, np.zeros(9), 4, shown=5)
    assert draw.outcome_text(ranking) == "average precision 0.25, 2 of 3 true matches outside the first 5"
    assert draw.outcome_html(ranking, source.data).count("ranked at") == 2


def test_inside_names_the_place_of_every_maximum(asked):
    search, query = asked
    fig, alt = inside_of(search, query, "first")
    assert "similarity to the query: largest" in alt and "centerness" in alt and "detections" in alt
    assert inside_of(search, query, "first", place=1)[1].startswith("rank 1 (")
    assert fig.get_figwidth() == 8 and inside_of(search, query, "first", width=6.4)[0].get_figwidth() == 6.4
    with pytest.raises(UserError, match="there is no rank"):
        inside_of(Search(search.source, search.gallery, "all", 1.0), query, "first", place=3)


def test_the_menu_of_changes_holds_every_change_of_a_drawn_person():
    scene = sample_scene([(1, sample_person(np.random.default_rng(0)))], np.random.default_rng(1))
    offered = {name for view in VIEWS for name in what_ifs(scene.with_(view=view), 0)}
    assert offered <= set(FACTORS)
    assert len(set(FACTORS) - offered) <= 1  # somebody who stands has no other step


def test_only_drawn_annotated_people_are_drawn_again(asked):
    search, query = asked
    free = query_in_frame(search.source.data, query.frame, (2, 2, 30, 60))
    with pytest.raises(UserError, match="only an annotated person of a drawn set"):
        what_if(search, free, "first", FACTORS[0])


def test_failures_show_each_person_once(asked):
    search, _ = asked
    rows = failure_rows(search, "first", ("first", "second"), count=3)
    people = [tiles[0].lines[0].split(" in ")[0] for _, tiles in rows]
    assert len(set(people)) == len(people) == 3
    fig, alt = draw.failures_figure(rows)
    assert alt.count("first: rank 1") == 3


# ---- what is entered ----

def test_pictures_that_cannot_be_opened(tmp_path):
    text, huge = tmp_path / "notes.txt", tmp_path / "huge.png"
    text.write_text("no picture")
    Image.new("1", (10_000, 5_000)).save(huge)
    for source_of, words in ((text, "no image"), (huge, "50 megapixels"), (tmp_path / "none.png", "no file"),
                             ("  ", "no image file is named"), (b"nothing", "the uploaded file is no image")):
        with pytest.raises(UserError, match=words):
            open_picture(source_of)
    assert MAX_PIXELS < 50e6


def test_pictures_from_a_file_and_from_bytes(tmp_path):
    path, packed = tmp_path / "grey.png", io.BytesIO()
    Image.new("L", (7, 5), 9).save(path)
    Image.new("RGBA", (7, 5)).save(packed, "PNG")
    assert open_picture(path).tolist() == np.full((5, 7, 3), 9).tolist()
    assert open_picture(packed.getvalue(), "mine").shape == (5, 7, 3)
    assert data_uri(open_picture(path), width=4).startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("box", [(-50, 0, -9, 20), (0, 70, 9, 90), (9, 9, 10, 40), (30, 9, 20, 40), (0, 0, np.nan, 9)])
def test_boxes_outside_the_image_are_refused(box):
    with pytest.raises(UserError, match="covers less than"):
        box_in_image(box, (64, 96))


# ---- the widget, driven by the events that the page would send ----

def event(widget, **content):
    widget.picker._handle_custom_msg(content, [])
    return widget.note.value


def test_clicks_keys_and_boxes_search(source):
    widget = browse({"toy": source})
    widget.threshold.value = 0.0
    widget.mode.value = "frame"
    event(widget, kind="item", index=1)
    frame = source.data.frames[1]
    x1, y1, x2, y2 = frame.boxes[0]
    assert event(widget, kind="point", x=float(x1 + x2) / 2, y=float(y1 + y2) / 2) == ""
    clicked = widget.shown["ranking"].value
    assert f"person {frame.person_ids[0]} in {frame.name}," in clicked and widget.picker.chosen == 0
    assert widget.picker.alt.endswith(f"; the query is person {frame.person_ids[0]} in {frame.name}")
    assert event(widget, kind="person", index=1) == "" and widget.shown["ranking"].value != clicked
    assert event(widget, kind="box", box=[2, 2, 30, 60]) == "" and widget.picker.drawn == [2, 2, 30, 60]
    widget.tabs.selected_index = 1
    assert "by 2 models" in widget.shown["two models"].value


def test_mistakes_are_one_sentence_in_the_widget(source, tmp_path):
    widget = browse({"toy": source})
    assert "nobody is boxed at" in event(widget, kind="point", x=95.9, y=0.0)
    widget.threshold.value = 1.0
    widget.boxes.value = "detected"
    assert "no box to click" in event(widget, kind="point", x=5, y=5)
    assert "covers less than" in event(widget, kind="box", box=[500, 500, 520, 540])
    widget.camera.value = "other"
    assert "does not know its cameras" in widget.note.value and widget.shown["ranking"].value == ""
    widget.number.value = 10_000
    assert "there is no number 10000" in widget.note.value
    widget.mode.value = "own image"
    assert "no image of your own" in widget.note.value
    Image.new("RGB", (96, 64)).save(tmp_path / "mine.png")
    widget.file.value = str(tmp_path / "mine.png")
    assert "detects nobody in mine.png at threshold 1.00" in widget.note.value


def test_an_error_of_the_browser_is_said_and_raised(source, monkeypatch):
    widget = browse({"toy": source})
    monkeypatch.setattr(draw, "gallery_figure", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        widget._guarded(widget._show_tab)
    assert "the browser failed (ZeroDivisionError" in widget.note.value and widget.shown["ranking"].value == ""


def test_every_way_to_choose_fills_the_strip(source):
    widget = browse({"toy": source})
    for mode in ("frame", "identity", "at random", "hardest first"):
        widget.number.value, widget.mode.value = 0, mode
        assert widget.note.value == "" and widget.picker.items and widget.picker.item == 0
        assert all(item["alt"] and item["image"].startswith("data:") for item in widget.picker.items)
    widget.gallery.value = "all frames"
    widget.mode.value, widget.number.value = "frame", 3
    widget.mode.value = "hardest first"
    assert "has no list of queries" in widget.note.value


def test_people_to_click_are_those_of_the_frame(source):
    frame = source.data.frames[0]
    assert [person["box"] for person in people_of(source, 0, "first", "annotated", 0.0)] == frame.boxes.tolist()
    scores = [float(person["name"].split()[-1]) for person in people_of(source, 0, "first", "detected", 0.0)]
    assert scores == sorted(scores, reverse=True)
