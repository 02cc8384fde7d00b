"""The papers' numbers: every file is complete, prose and tables agree where they should, a misprint is caught."""

import json
import shutil
from dataclasses import replace

import pytest

from pslib import paths
from pslib.data.published import PUBLISHED
from pslib.errors import UserError
from pslib.experiments.catalogue import EXPERIMENTS
from pslib.experiments.reported import reported, reported_names, statements

# Sentences of the papers that their own tables contradict, as far as this project has found them.
CONTRADICTIONS = {
    "P3, P4 has a slightly higher detection recall than P3 on prw",
    "deformable convolutions in the backbone have positive effects: res3 on prw",
    "deformable convolutions in the backbone have positive effects: res3 & res4 on prw",
    "trained together without RPN, each branch is similar (1.5 per cent mAP) to itself trained apart: ROI-Align on "
    "cuhk-sysu",
    "no other model has (only DKD, PGA, IGPN and TCTS are named): SeqNet+CBGM on PRW",
    "80.45 per cent top-1 are 1.85 per cent above the state of the art",
    "2 to 3 per cent come from center loss alone: mAP, ResNet-50",
    "with three dropout layers IAN's mAP is about 10 per cent below that without",
    "IAN's top-1 on PRW is more than 14 per cent above DPM+IDE's (both as AlignPS quotes them)",
    "the papers count the same boxes on cuhk-sysu",
}
TABLES = [f"alignps-table{number}" for number in range(1, 10)] + [f"ian-table{number}" for number in range(1, 7)]


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of ``data/reported`` that may be damaged."""
    folder = tmp_path / "reported"
    shutil.copytree(paths.reported_dir(), folder)
    monkeypatch.setattr(paths, "reported_dir", lambda: folder)
    return folder


def test_every_table_is_there():
    assert set(reported_names()) >= {*TABLES, "alignps-fig6", "counts"}
    assert "prose" not in reported_names()


@pytest.mark.parametrize("name", reported_names())
def test_file_is_complete(name):
    table = reported(name)
    assert table.title and table.unit and table.kinds
    for kind in table.kinds:
        assert table.as_text(kind).count("\n") == len(table.rows(kind))
        for row in table.rows(kind):
            for column in table.columns[kind]:
                found, origin = table.cell(row, kind, column), table.origin(row, kind, column)
                assert (found is None) == origin.startswith("missing: ")
                if column in ("recall", "AP", "mAP", "top-1") and found is not None:
                    assert 0 < found < 100
    for group in table.unplaced:
        assert all(table.cell(row, group.kind, column) is None for row in group.rows for column in group.columns)


def test_tables_share_their_rows_between_the_sets():
    for name in TABLES:
        table = reported(name)
        assert len({tuple(table.rows(kind)) for kind in table.kinds}) == 1


@pytest.mark.parametrize("name", [name for name, experiment in EXPERIMENTS.items() if experiment.reported])
def test_rows_are_those_of_the_experiment(name):
    experiment = EXPERIMENTS[name]
    table = reported(experiment.reported)
    for kind in set(experiment.kinds) & set(table.kinds):
        # A row that the text has no number for may be a method that is not rebuilt here.
        columns = table.columns[kind]
        known = {row for row in table.rows(kind) if any(table.value(row, kind, c) is not None for c in columns)}
        assert known <= set(experiment.rows)
    for claim in experiment.claims:
        if claim.column is not None:
            for kind in experiment.kinds:
                table.contrast(claim.contrast, kind, claim.column)  # raises on a row or column that is not there


def test_prose_and_tables():
    """The second route: what the prose says must follow from the tables, but for the contradictions we know."""
    found = {statement.says for statement in statements() if statement.agrees is False}
    assert found == CONTRADICTIONS
    # A number that was worked out from a sentence cannot be held against it.
    (circular,) = (statement for statement in statements() if statement.circular)
    assert circular.says.startswith("all three alignments bring 23") and circular.agrees is None


def test_every_printed_search_number_is_held_against_something():
    """No row of a table of AlignPS's first paper half stands outside all sentences."""
    named = {term[1:4] for statement in statements() for term in statement.terms}
    for name in ("alignps-table1", "alignps-table2", "alignps-table3"):
        for kind in ("cuhk-sysu", "prw"):
            assert {(name, kind, row) for row in reported(name).rows(kind)} <= named


def test_spot_values():
    """Read from the papers' pages a second time."""
    table = reported("alignps-table1")
    assert table.value("P3, P4, P5", "prw", "recall") == 95.4
    assert table.value("P5", "cuhk-sysu", "AP") == 71.7
    assert reported("alignps-table3").value("T2", "prw", "recall") == 96.9
    assert reported("alignps-table6").value("joint without RPN, ROI-Align*", "prw", "top-1") == 84.5
    assert reported("alignps-table9").cell("DKD", "both", "GPU") == "1080 Ti"
    assert reported("ian-table5").value("IAN (ResNet-101), occlusion", "cuhk-sysu", "mAP") == 53.02
    assert reported("counts").value("boxes", "cuhk-sysu", "IAN") == 99_809


def test_ends_of_fig6():
    figure = reported("alignps-fig6")
    assert [figure.value(row, "cuhk-sysu", "mAP") for row in ("baseline", "all")] == [70.1, 93.1]
    assert [figure.value(row, "prw", "mAP") for row in ("baseline", "all")] == [19.8, 45.9]
    assert figure.origin("baseline", "cuhk-sysu", "mAP").startswith("derived: ")
    assert figure.origin("baseline", "prw", "mAP").startswith("assumed: ")
    assert figure.contrast({"scale": 1, "baseline": -1}, "prw", "mAP") is None
    shared = (("scale+region", "alignps-table3", "T3"), ("scale+task", "alignps-table2", "none"),
              ("region+task", "alignps-table1", "P3, P4, P5"), ("all", "alignps-table1", "P3"))  # fmt: skip
    for row, other, label in shared:
        for kind in figure.kinds:
            assert figure.value(row, kind, "mAP") == reported(other).value(label, kind, "mAP")
            assert figure.origin(row, kind, "mAP") != "printed"


def test_gains_of_table4_are_its_differences():
    table = reported("alignps-table4")
    for kind in table.kinds:
        for row in table.rows(kind)[1:]:
            for column in ("mAP", "top-1"):
                gain = table.contrast({row: 1, "OIM": -1}, kind, column)
                assert gain == pytest.approx(table.value(row, kind, f"{column} gain"))


def test_ian_is_quoted_at_resnet50():
    quoted, own = reported("alignps-table8"), reported("ian-table1")
    for column in ("mAP", "top-1"):
        assert quoted.value("IAN", "cuhk-sysu", column) == round(own.value("IAN (ResNet-50)", "cuhk-sysu", column), 1)
        assert quoted.value("IAN", "cuhk-sysu", column) != round(own.value("IAN (ResNet-101)", "cuhk-sysu", column), 1)


def test_counts_are_those_the_readers_print():
    table = reported("counts")
    names = {("train", "images"): "training images", ("train", "people"): "training people",
             ("test", "images"): "test images", ("test", "queries"): "queries"}  # fmt: skip
    names |= {("both", what): what for what in ("images", "people", "boxes", "labelled boxes")}
    compared = 0
    for (kind, split, what), sources in PUBLISHED.items():
        for source, number in sources.items():
            paper = source.split()[0]
            if paper in table.columns[kind] and (split, what) in names:
                assert table.value(names[split, what], kind, paper) == number
                compared += 1
    assert compared > 15


def test_rows_of_our_own_stand_for_the_paper_row():
    table = replace(reported("alignps-table1"), aliases={"P3, ours": "P3"})
    assert table.contrast({"P3, P4, P5": 1, "P3, ours": -1}, "cuhk-sysu", "recall") == 0.6
    with pytest.raises(UserError, match="P3, yours"):
        table.value("P3, yours", "cuhk-sysu", "recall")


def test_a_row_of_another_table_is_read_there_and_not_shown_here():
    table, other = reported("alignps-table5"), reported("alignps-table2")
    for kind in table.kinds:
        assert table.value("plain neck", kind, "mAP") == other.value("none", kind, "mAP")
        assert table.value("plain neck, concat", kind, "top-1") == other.value("concat", kind, "top-1")
        assert table.origin("plain neck", kind, "mAP") == other.origin("none", kind, "mAP")
        assert "plain neck" not in table.rows(kind) and "plain neck" not in table.as_text(kind)
    assert table.contrast({"none": 1, "plain neck": -1}, "prw", "mAP") == 18.5


@pytest.mark.parametrize(
    ("name", "kind", "row", "right", "wrong"),
    [
        ("alignps-table2", "cuhk-sysu", "lateral", 90.6, 96.0),
        ("alignps-table4", "cuhk-sysu", "TOIM w/ LUT", 93.1, 91.3),
        ("alignps-table1", "prw", "P3", 45.9, 49.5),
        ("ian-table3", "cuhk-sysu", "30000", 62.55, 65.25),
        ("ian-table5", "cuhk-sysu", "IAN (ResNet-101), occlusion", 53.02, 35.02),
    ],
)
def test_misprint_is_caught(copied, name, kind, row, right, wrong):
    path = copied / f"{name}.json"
    content = json.loads(path.read_text())
    entries = content["values"][kind][row]
    entries[entries.index(right)] = wrong
    path.write_text(json.dumps(content))
    found = {statement.says for statement in statements() if statement.agrees is False}
    assert found - CONTRADICTIONS


def test_bad_names():
    table = reported("alignps-table1")
    for call, said in (
        (lambda: reported("alignps-tabel1"), "unknown reported table 'alignps-tabel1'"),
        (lambda: table.value("P6", "prw", "mAP"), "unknown row in alignps-table1 on prw 'P6'"),
        (lambda: table.value("P3", "cuhk", "mAP"), "unknown set in alignps-table1 'cuhk'"),
        (lambda: table.value("P3", "prw", "map"), "unknown column in alignps-table1 on prw 'map'"),
        (lambda: reported("alignps-table9").value("PGA", "both", "GPU"), "is a text ('Titan X')"),
    ):
        with pytest.raises(UserError, match="nearest|read it with") as caught:
            call()
        assert said in str(caught.value) and str(caught.value).count(". ") == 0


def damage(content, what):
    if what == "short row":
        content["values"]["prw"]["P3"].pop()
    elif what == "null without reason":
        content["values"]["prw"]["P3"][0] = None
    elif what == "reason without null":
        content["missing"] = [{"set": "prw", "rows": ["P3"], "columns": ["mAP"], "reason": "lost"}]
    elif what == "no title":
        del content["title"]


@pytest.mark.parametrize("what", ["short row", "null without reason", "reason without null", "no title", "not JSON"])
def test_damaged_file_is_named(copied, what):
    path = copied / "alignps-table1.json"
    content = json.loads(path.read_text())
    damage(content, what)
    path.write_text("{" if what == "not JSON" else json.dumps(content))
    with pytest.raises(UserError, match=r"alignps-table1\.json .*restore it with git"):
        reported("alignps-table1")
