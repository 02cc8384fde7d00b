"""The ledger: verdicts on records made by hand, what is missing said in words, claims older than their records."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from toy_sets import toy_recipe

from pslib import notebooks, paths
from pslib.cli import main
from pslib.evaluation.statistics import Interval, Verdict
from pslib.experiments import history, longer
from pslib.experiments.catalogue import EXPERIMENTS
from pslib.experiments.history import claims_in, commit_of_claim, defaults_in, is_ancestor, keys_of
from pslib.experiments.ledger import MIN_SEEDS, NOT_RECORDED, Entry, entry, ledger, paper_effect
from pslib.experiments.ledger_text import PREDATES, UNKNOWN, UNTRAINED, WIDTH, ledger_summary, ledger_text
from pslib.experiments.longer import Longer
from pslib.experiments.lookup import LostRun
from pslib.experiments.measures import values_of
from pslib.experiments.plateau import uniform_loss
from pslib.experiments.records import Record, read_records
from pslib.experiments.registry import Claim, Experiment

PEOPLE = np.repeat(np.arange(40), 2)
RECIPE = toy_recipe(model__queue_size=128)
BETTER = Claim("a > b", "A is better.", {"a": 1, "b": -1})


def record(seed, ap, commit="", level=4.0, **arrays):
    """A finished run: eighty queries of forty people, every AP given or all the same; re-id loss ends at ``level``."""
    ap = np.broadcast_to(np.asarray(ap, np.float32), PEOPLE.shape)
    stored = {"TestG100/people": PEOPLE, "loss/oim": np.linspace(7, level, 200).astype(np.float32)}
    for boxes in ("detected", "ground-truth"):
        stored |= {f"TestG100/{boxes}/ap": ap, f"TestG100/{boxes}/rank": (ap > 0.5).astype(np.int32)}
    info = {"recipe": asdict(RECIPE), "seed": seed, "status": "finished", "protocols": ["TestG100"], "commit": commit,
            "device": "cpu", "date": "2026-01-02",
            "hash": "h", "data": {"identities": 640, "fingerprint": "f"}, "validation": []}  # fmt: skip
    return Record(None, info, stored | arrays)


def row(center, seeds=(0, 1, 2), scatter=0.05, **more):
    """One run a seed whose APs scatter around ``center``."""
    return [record(s, np.random.default_rng([s, 9]).normal(center, scatter, len(PEOPLE)), **more) for s in seeds]


def judged(claim=BETTER, others=None, **rows):
    experiment = Experiment("toy", "t", "s", dict.fromkeys(rows, "v"), (claim,), variants={"v": RECIPE})
    return entry(experiment, claim, "cuhk-sysu", "tiny", rows, others)


def test_a_difference_that_all_seeds_share_is_reproduced():
    found = judged(a=row(0.6), b=row(0.4))
    assert found.verdict.word == "reproduced" and found.seeds == (0, 1, 2) and found.queries == 80
    # Seeds and queries are paired: what scatters alike in both rows cancels.
    assert found.interval.mean == pytest.approx(20, abs=1e-3) and found.interval.half_width < 1e-3
    assert found.per_seed == pytest.approx([20] * 3, abs=1e-3)
    assert judged(a=row(0.4), b=row(0.6)).verdict.word == "not reproduced"
    assert judged(a=row(0.4), b=row(0.395)).verdict.word == "reproduced"
    assert judged(a=row(0.4), b=row(0.4)).verdict.word == "not reproduced"


def test_a_contrast_adds_rows_with_their_signs():
    claim = Claim("more together", "A and b add up.", {"both": 1, "a": -1, "b": -1, "none": 0.5})
    found = judged(claim, both=row(0.8), a=row(0.3), b=row(0.2), none=row(0.2))
    assert found.interval.mean == pytest.approx(100 * (0.8 - 0.3 - 0.2 + 0.1), abs=3)


def test_an_equivalence_holds_within_its_margin():
    claim = Claim("a as b", "A is as good.", {"a": 1, "b": -1}, kind="equivalence", margin=2.0)
    assert judged(claim, a=row(0.405), b=row(0.4)).verdict.word == "reproduced"
    assert judged(claim, a=row(0.45), b=row(0.4)).verdict.word == "not reproduced"


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
@pytest.mark.parametrize("center", [0.2, 0.9])
def test_fewer_than_three_seeds_decide_nothing(seeds, center):
    found = judged(a=row(center), b=row(0.4, seeds))
    absent = ", ".join(str(seed) for seed in range(MIN_SEEDS) if seed not in seeds)
    assert found.verdict.word == "undecided" and found.interval is not None
    assert f"{len(seeds)} of 3 seeds" in found.verdict.reason and absent in found.verdict.reason
    assert "'b'" in found.verdict.reason and "'a'" not in found.verdict.reason


def test_only_common_seeds_are_compared():
    found = judged(a=row(0.6, (0, 1, 2, 3)), b=row(0.4, (3, 1, 2, 7)))
    assert found.seeds == (1, 2, 3) and found.verdict.word == "reproduced"
    apart = judged(a=row(0.6, (0, 1)), b=row(0.4, (2,)))
    assert apart.verdict == Verdict(NOT_RECORDED, "the rows share no seed: 'a' has seeds 0, 1, 'b' has seed 2")


def test_rows_without_records_are_named_with_what_is_known_of_them():
    found = judged(a=[], b=row(0.4), others={"a": [LostRun("seed 0 failed: training diverged", 0)]})
    assert found.verdict.word == NOT_RECORDED and found.interval is None
    assert found.verdict.reason == "not recorded yet: 'a'; a: seed 0 failed: training diverged"
    assert "'a', 'b'" in judged(a=[], b=[]).verdict.reason


def test_a_seed_that_failed_is_named_and_another_takes_its_place():
    others = {"a": [LostRun("seed 1 failed: training diverged", 1)]}
    said = judged(a=row(0.6, (0, 2)), b=row(0.4), others=others).verdict
    assert said.word == "undecided"
    assert said.reason == (
        "2 of 3 seeds: recording 'a' seed 3 and 'b' seed 3 would decide it; "
        "left out: 'a', seed 1 failed: training diverged"
    )
    seeds = (0, 2, 3)
    decided = judged(a=row(0.6, seeds), b=row(0.4, seeds), others=others)
    assert decided.seeds == seeds and decided.verdict.word == "reproduced"
    assert "left out: 'a', seed 1 failed" in decided.verdict.reason


def test_a_row_that_has_not_learned_leaves_its_claims_undecided():
    stuck = row(0.1, (0, 2)) + row(0.1, (1,), level=uniform_loss(640, 128))
    found = judged(a=row(0.6), b=stuck)
    assert found.verdict.word == "undecided" and "'b', seed 1, has not left the plateau" in found.verdict.reason
    assert "'a'" not in found.verdict.reason and "would decide it" in found.verdict.reason


def test_records_older_than_a_measure_say_so():
    claim = Claim("detects", "A detects more.", {"a": 1, "b": -1}, measure="recall", margin=0.5)
    boxes = {"detection/found": np.arange(100) % 10 > 0, "detection/frame": np.arange(100) // 4}
    found = judged(claim, a=row(0.4, **boxes), b=row(0.4))
    assert found.verdict.word == NOT_RECORDED
    assert "'b', seed 0, is older than this measure and does not say which people were" in found.verdict.reason
    fewer = boxes | {"detection/found": np.arange(100) % 5 > 0}
    found = judged(claim, a=row(0.4, **boxes), b=row(0.4, **fewer))
    assert found.interval.mean == pytest.approx(10) and found.queries == 100
    spread = Claim("wide", "C4 reaches wider.", {"a": 1}, measure="spread")
    assert "where the neck samples" in judged(spread, a=row(0.4)).verdict.reason


def test_measures_are_per_cent_of_what_they_say():
    made = record(0, np.where(PEOPLE < 10, 1.0, 0.25))
    made.arrays["TestG100/ground-truth/ap"] = np.full(len(PEOPLE), 0.5)
    made.arrays.update({f"sampling/{path}/{what}": np.array(values, np.float16) for path, what, values in (
        ("C3", "radius", [0.25, 0.5]), ("C4", "radius", [0.5, 1.0]), ("C3", "inside", [0.75, 1]),
        ("C4", "inside", [0.5, 0.25]))})  # fmt: skip
    made.arrays["sampling/frame"] = np.array([3, 4])
    expected = {"map": 43.75, "top1": 25.0, "ground-truth map": 50.0, "spread": 37.5, "inside": 50.0}
    for measure, mean in expected.items():
        values, groups = values_of(made, measure)
        assert values.mean() == pytest.approx(mean) and len(values) == len(groups)
    assert values_of(made, "spread")[1].tolist() == [3, 4] and values_of(made, "map")[1] is PEOPLE
    with pytest.raises(KeyError, match="detection/found"):
        values_of(made, "recall")


def test_the_paper_effect_is_the_same_contrast_of_its_numbers():
    table = EXPERIMENTS["alignps-table2"]
    claim = next(claim for claim in table.claims if claim.name == "all > none")
    assert paper_effect(table, claim, "prw") == (pytest.approx(18.5), "printed")
    assert paper_effect(table, Claim("c", "t", {"all": 1, "none": -1}, column=None), "prw") == (None, "")
    assert paper_effect(table, Claim("c", "t", {"nothing": 1}), "prw") == (None, "")
    # Table II's marks are lost, so which row is a pair is inferred; Fig. 6's ends are worked out.
    pair, ends = Claim("c", "t", {"lateral+output": 1, "none": -1}), Claim("c", "t", {"all": 1, "baseline": -1})
    assert paper_effect(table, pair, "prw")[1] == "assumed"
    assert paper_effect(EXPERIMENTS["alignps-fig6"], ends, "prw") == (pytest.approx(26.1), "assumed, derived")
    # Every claim that names a column of the paper is found there, but for what Fig. 6 shows as bars only.
    for experiment in EXPERIMENTS.values():
        for claim in experiment.claims:
            if experiment.reported and claim.column and experiment.name != "alignps-fig6":
                found = [paper_effect(experiment, claim, kind)[0] for kind in experiment.kinds]
                assert None not in found, claim.name


def test_the_ledger_reads_whatever_is_recorded():
    entries = ledger("tiny")
    wanted = [(e.name, c.name, kind) for e in EXPERIMENTS.values() for c in e.claims for kind in e.kinds]
    assert [(item.experiment, item.claim.name, item.set) for item in entries] == wanted
    for item in entries:
        assert item.verdict.word in ("reproduced", "not reproduced", "undecided", NOT_RECORDED)
        assert (item.interval is None) is (item.verdict.word == NOT_RECORDED)
        if item.verdict.word in ("reproduced", "not reproduced"):
            assert len(item.seeds) >= MIN_SEEDS
        if item.verdict.word == NOT_RECORDED:
            assert item.verdict.reason
    text = ledger_text(entries)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert all(experiment in text for experiment in EXPERIMENTS)
    nothing = ledger("small", ["alignps-fig6"])
    assert all(item.profile == "small" for item in nothing)


def test_a_set_neither_drawn_nor_recorded_is_an_empty_ledger(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "results_dir", lambda: tmp_path / "results")
    monkeypatch.setattr(paths, "synthetic_dir", lambda profile=None: tmp_path / "drawn")
    assert {item.verdict.word for item in ledger()} == {NOT_RECORDED}


def made_entry(word, effect=None, **more):
    fields = {"effect": effect, "claim_commit": "c0ffee"} | more
    return Entry("alignps-fig6", BETTER, "prw", "tiny", Verdict(word, f"why {word}"), **fields)


def test_the_summary_counts_words_and_open_claims_of_large_effect():
    entries = [made_entry("reproduced", 5.0), made_entry("undecided", 3.0), made_entry("undecided", 0.2),
               made_entry(NOT_RECORDED, 8.0), made_entry("not reproduced")]  # fmt: skip
    said = ledger_summary(entries)
    assert "5 claims" in said and "1 reproduced, 1 not reproduced, 2 undecided, 1 not recorded" in said
    assert "of the 3 whose effect in the paper is 3 points or more, 2 (67 %)" in said
    assert "are undecided or not recorded,\n  2 of them because fewer" in said
    three = [replace(item, seeds=(0, 1, 2)) for item in entries]
    assert "of them because fewer" not in ledger_summary(three) and "not recorded,\n" not in ledger_summary(three)
    lines = ledger_text(entries).splitlines()
    assert sum("why undecided" in line for line in lines) == 2 and not any("why reproduced" in line for line in lines)
    assert "no profile, 0 claims" in ledger_summary([]) and "put at risk" not in said


def test_a_larger_profile_says_how_its_steps_differ_from_the_notes():
    entries = [made_entry("undecided"), replace(made_entry("undecided"), profile="small")]
    assert ledger_text(entries).count("At the profile small rows have 3 times the steps that the notes name.") == 1
    assert "times the steps" not in ledger_text(entries[:1])


@pytest.mark.parametrize("effect, text", [(2.95, " +2.95 "), (3.1, " +3.1 "), (18.0, " +18.0 "), (-0.4, " -0.4 ")])
def test_an_effect_is_told_with_the_papers_decimals(effect, text):
    """2.95 told as 3.0 would be read as one of 3 points or more, which the summary counts."""
    assert text in ledger_text([made_entry("undecided", effect, effect_origin="printed")])


def test_an_effect_that_is_not_printed_is_marked():
    told = [ledger_text([made_entry("undecided", 5.0, effect_origin=origin)]) for origin in ("printed", "assumed")]
    assert " +5.0  undecided" in told[0] and "~+5.0" not in told[0] and " ~+5.0  undecided" in told[1]


def test_what_could_not_fail_is_counted_apart():
    late, always = made_entry("reproduced", older=("a", "b")), replace(BETTER, holds_untrained=True)
    safe = [late, replace(made_entry("reproduced"), claim=always), made_entry("reproduced", older=("a",))]
    assert [item.at_risk for item in safe] == [False, False, True]
    assert "of those reproduced, 2 were not put at risk" in ledger_summary(safe)
    assert UNTRAINED in ledger_text(safe) and safe[1].as_dict()["put_at_risk"] is False


def test_whether_a_claim_that_git_does_not_know_was_put_at_risk_cannot_be_told():
    """As after a change of its margin, or in a clone without history."""
    known, unknown, empty = (made_entry("reproduced"), made_entry("reproduced", claim_commit=""),
                             made_entry(NOT_RECORDED, claim_commit=""))  # fmt: skip
    assert (known.at_risk, unknown.at_risk) == (True, None) and unknown.as_dict()["put_at_risk"] is None
    said = ledger_summary([known, unknown, empty])
    assert "whether 1 of all were put at risk cannot be told: git does not know them" in said
    assert "git does not" not in ledger_summary([known]) and ledger_text([known, unknown, empty]).count(UNKNOWN) == 1


def test_a_gain_of_a_third_by_more_steps_is_held_against_a_difference():
    ten = Interval(10.0, 8.0, 12.0)
    one, other = Longer("a", "a-long", 360, 1080, 0.5, 3.2, 3), Longer("b", "b-long", 360, 1080, 1.0, -3.4, 3)

    def steps_matter(*rows, **more):
        return replace(made_entry("reproduced", interval=ten, longer=rows), **more).steps_matter

    assert steps_matter(one, other) is True and steps_matter(other) is True
    assert steps_matter(one) is None and steps_matter() is None  # "b" may move by anything
    assert steps_matter(one, replace(other, gain=-3.2)) is False  # two schedules, each row by itself
    same = replace(one, label="b", gain=7.0)  # one schedule: 3.2 - 7.0 is more than a third of ten
    assert steps_matter(one, same) is True and steps_matter(one, replace(same, gain=0.0)) is False
    assert steps_matter(replace(one, gain=15.0), replace(same, gain=14.0)) is False  # both gain alike
    twice = replace(BETTER, contrast={"a": 2.0, "b": -1.0})
    assert steps_matter(one, claim=twice) is True
    assert steps_matter(one, other, claim=replace(BETTER, measure="recall")) is None
    assert steps_matter(one, other, interval=None) is None
    said = " ".join(ledger_text([made_entry("reproduced", interval=ten, longer=(one, other))]).split())
    assert "prw 'a' +3.2 points with 1080 steps instead of 360 and 0.5 times the rate; " in said
    assert "prw 'b' -3.4 points with 1080 steps instead of 360. 1 of the 1 differences of search mAP move" in said
    assert "no row is recorded with twice as many" in ledger_text([made_entry("reproduced", interval=ten)])


def test_longer_runs_of_a_row_are_found_by_the_recipe_and_their_gain_by_common_seeds(monkeypatch):
    short = RECIPE.with_(name="short", schedule__steps=10)
    variants = {
        "short": short,
        "long": short.with_(name="long", schedule__steps=20, schedule__learning_rate=1e-4),
        "longer": short.with_(name="longer", schedule__steps=30, schedule__learning_rate=3e-3),
        "hardly": short.with_(name="hardly", schedule__steps=19),
        "another": short.with_(name="another", schedule__steps=40, flip=not short.flip),
        "unrecorded": short.with_(name="unrecorded", schedule__steps=50),
    }
    maps = {10: {0: 20.0, 1: 30.0}, 20: {0: 50.0}, 30: {1: 36.0, 2: 90.0}, 19: {0: 99.0}, 40: {0: 99.0}, 50: {}}

    def recorded(recipe, read):
        found = [record(seed, 0.5) for seed in maps[recipe.schedule.steps]]
        for one in found:
            value = maps[recipe.schedule.steps][one.info["seed"]]
            one.info["results"] = {"search": {"TestG100": {"map": value}}}
        return found, []

    monkeypatch.setattr(longer, "VARIANTS", variants)
    monkeypatch.setattr(longer, "runs_if_any", recorded)
    table = Experiment("toy", "t", "s", {"row": "short", "end": "another"}, (), variants=variants)
    assert longer.longer_rows(table, short.kind, short.profile) == [
        Longer("row", "longer", 10, 30, pytest.approx(3e-3 / short.schedule.learning_rate), 6.0, 1)
    ]


def curve(values, steps=(10, 20, 30)):
    """Validation points of a run: mAP with true boxes after each of ``steps``."""
    return [{"step": step, "ground_truth_map": value} for step, value in zip(steps, values, strict=True)]


def test_a_gap_that_closes_while_two_rows_train_is_named():
    ours, theirs = row(0.6), row(0.4)
    for one, other, shift in zip(ours, theirs, (0.0, 3.0, -3.0), strict=True):
        one.info["validation"], other.info["validation"] = curve([30 + shift, 50, 60]), curve([20, 30, 50 + shift])
    found = judged(a=ours, b=theirs)
    assert found.gap.steps == (10, 20, 30) and found.gap.points == pytest.approx((10, 20, 10)) and found.gap.seeds == 3
    assert found.gap.left == pytest.approx(0.5) and found.gap.closes and found.verdict.word == "reproduced"
    said = " ".join(ledger_text([found]).split())
    assert "from 20.0 points at its largest to 10.0 (validation people, true boxes): in part slow convergence" in said
    assert "1 have a gap that closes with training" in said and found.as_dict()["gap_closes"] is True
    # Sums of rows, other measures and curves of other steps have no such gap; and a lead that was never there no share.
    assert judged(Claim("a > b", "A.", {"a": 1, "b": -1}, measure="top1"), a=ours, b=theirs).gap is None
    assert judged(Claim("a is b", "A.", {"a": 1, "b": -1}, kind="equivalence"), a=ours, b=theirs).gap is None
    assert judged(a=theirs, b=ours).gap.left is None
    for one in theirs:
        one.info["validation"] = curve([20, 30, 50], (10, 20, 40))
    assert judged(a=ours, b=theirs).gap is None


def test_the_claims_of_the_first_papers_tables_are_judged():
    """Three seeds for each, and of those with an effect of 3 points or more in the paper at most a third left open."""
    names = ["alignps-fig6", *(f"alignps-table{number}" for number in range(1, 6))]
    found = ledger("tiny", names)
    assert {item.experiment for item in found} == set(names)
    for item in found:
        assert len(item.seeds) >= 3, (item.experiment, item.claim.name, item.set, item.verdict.reason)
    large = [item for item in found if item.effect is not None and abs(item.effect) >= 3]
    left_open = [item for item in large if item.verdict.word not in ("reproduced", "not reproduced")]
    assert large and 3 * len(left_open) <= len(large)


def test_what_table2_says_of_prw_may_speak_of_its_short_schedule_only():
    """On CUHK-SYSU both rows gain alike with three times the steps, and the difference stays."""
    found = [item for item in ledger("tiny", ["alignps-table2"]) if item.claim.name == "all > none"]
    assert {item.set: item.steps_matter for item in found} == {"cuhk-sysu": False, "prw": True}
    assert {row.variant for item in found for row in item.longer} == {"alignps-long", "scale-task-long"}


def test_a_run_of_the_series_ends_in_results_and_the_ledger(capsys):
    notebooks._print_results("tiny")
    said = capsys.readouterr().out
    assert said.startswith("RECORDED results") and "ledger, tiny profile" in said and "pslib ledger prints" in said
    notebooks._print_results("paper")
    assert "ledger" not in capsys.readouterr().out


def test_the_json_holds_evidence_and_commits(capsys):
    assert main(["ledger", "--json", "--experiment", "alignps-fig6"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 2 * len(EXPERIMENTS["alignps-fig6"].claims)
    names = {"experiment", "claim", "text", "set", "profile", "seeds", "queries", "difference", "interval", "margin",
             "kind", "measure", "unit", "verdict", "reason", "paper_effect", "paper_effect_origin", "commit_of_claim",
             "commits_of_records", "put_at_risk", "more_steps_could_move_it_by_a_third", "note"}  # fmt: skip
    for item in found:
        assert names <= set(item)
        assert item["interval"] is None or item["interval"][0] <= item["difference"] <= item["interval"][1]
    assert json.loads(json.dumps(judged(a=row(0.6), b=row(0.4)).as_dict()))["verdict"] == "reproduced"


def test_several_experiments_are_asked_for_in_one_call_or_one_by_one(capsys):
    told = []
    for arguments in (["alignps-fig6", "ian-table1"], ["alignps-fig6", "--experiment", "ian-table1"]):
        assert main(["ledger", "--json", "--experiment", *arguments]) == 0
        told.append({item["experiment"] for item in json.loads(capsys.readouterr().out)})
    assert told == [{"alignps-fig6", "ian-table1"}] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--experiment", "alignps-fgi6"], "nearest: alignps-fig6"), (["--profile", "tinny"], "nearest: tiny")],
)
def test_mistakes_end_in_one_sentence(arguments, said, capsys):
    assert main(["ledger", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_every_claim_is_found_in_the_source():
    sources = [(paths.root() / file).read_text() for file in history.CLAIM_FILES]
    defaults = defaults_in((paths.root() / history.CLAIM_CLASS).read_text())
    assert defaults["margin"] == Claim("n", "t", {"a": 1}).margin and defaults["kind"] == "difference"
    wanted = {key for e in EXPERIMENTS.values() for claim in e.claims for key in keys_of(e.name, e.rows, claim)}
    assert frozenset().union(*(claims_in(source, defaults) for source in sources)) == wanted
    moved = sources[0].replace('text="', 'text="Better worded: ')
    assert claims_in(moved, defaults) == claims_in(sources[0], defaults)
    assert claims_in(sources[0], defaults | {"margin": 9.0}) != claims_in(sources[0], defaults)


def toy(claim, **rows):
    return Experiment("toy", "t", "s", rows, (claim,), variants=dict.fromkeys(rows.values(), RECIPE))


def test_a_claim_is_as_old_as_its_last_change(monkeypatch):
    now = toy(BETTER, a="one", b="two")
    by_row, by_variant = sorted(keys_of(now.name, now.rows, BETTER))
    versions = [("new", {by_row}), ("middle", {by_variant}), ("old", set()), ("first", {by_row, by_variant})]
    monkeypatch.setattr(history, "_versions", lambda: tuple(versions))
    history._since.cache_clear()
    assert commit_of_claim(now, BETTER) == "middle" and commit_of_claim(now, BETTER, by="variants") == ""
    assert commit_of_claim(now, Claim("a > b", "A is better.", {"a": 1, "b": -1}, margin=3.0)) == ""
    renamed = Claim("c > b", "C is better.", {"c": 1, "b": -1})
    assert commit_of_claim(toy(renamed, c="one", b="two"), renamed) == ""  # "new" knows it by its rows only
    versions[0] = ("new", {by_row, by_variant})
    history._since.cache_clear()
    assert commit_of_claim(toy(renamed, c="one", b="two"), renamed) == "middle"
    history._since.cache_clear()


def test_without_git_commits_are_empty(monkeypatch):
    monkeypatch.setattr(history, "_run", lambda *_: (128, ""))
    for cached in (history._versions, history._since, history.is_ancestor):
        cached.cache_clear()
    assert commit_of_claim(EXPERIMENTS["alignps-fig6"], EXPERIMENTS["alignps-fig6"].claims[0]) == ""
    assert is_ancestor("a", "b") is None and is_ancestor("", "b") is None
    for cached in (history._versions, history._since, history.is_ancestor):
        cached.cache_clear()


def test_a_claim_written_after_all_its_records_is_shown_as_such(monkeypatch):
    monkeypatch.setattr("pslib.experiments.ledger.commit_of_claim", lambda *_, by="": "rows" if by else "claim")
    monkeypatch.setattr("pslib.experiments.ledger.is_ancestor", lambda _, later: {"old": False, "new": True}.get(later))
    both, one = judged(a=row(0.6, commit="old"), b=row(0.4, commit="old")), judged(a=row(0.6, commit="old"), b=row(0.4))
    assert both.sources == ("cpu, 2026-01-02",) and "Computed on: cpu, 2026-01-02." in ledger_text([both])
    assert both.predates and both.older == ("a", "b") and both.record_commits == ("old",)
    assert PREDATES in ledger_text([both]) and both.as_dict()["rows_older_than_claim"] == ["a", "b"]
    assert not one.predates and one.older == ("a",)
    assert judged(a=row(0.6, commit="new"), b=row(0.4, commit="new")).older == ()
    mixed = judged(a=[*row(0.6, commit="new")[:2], *row(0.6, commit="old")[2:]], b=row(0.4, commit="new"))
    assert mixed.partly_older == ("a",) and mixed.older == () and not mixed.predates
    assert "some of its records older than the claim: 'a'" in ledger_text([mixed])
    assert mixed.as_dict()["commit_of_rows"] == "rows" and mixed.as_dict()["commit_of_claim"] == "claim"
    assert "written in claim, of today's variants since rows: a > b" in " ".join(ledger_text([mixed]).split())


# Recorded before any claim was written down: they showed that the tiny profile is ready for claims at all.
FIRST = {"alignps", "baseline"}
# Sentences of the paper that were overlooked until records were there: on these sets they were not put at risk, or only
# by the records of further seeds, and the ledger says so.
LATE = {
    ("alignps-table1", "P3, P4 detect > P3", "cuhk-sysu"),
    ("alignps-table2", "lateral+concat > lateral", "cuhk-sysu"),
    ("alignps-table2", "lateral+concat > concat", "cuhk-sysu"),
    ("alignps-table2", "output+concat > output", "cuhk-sysu"),
    ("alignps-table2", "output+concat > concat", "cuhk-sysu"),
    ("alignps-table5", "AFA's convolutions > the backbone's", "cuhk-sysu"),
    ("alignps-table6", "separate: concatenation is no better", "cuhk-sysu"),
    ("alignps-table6", "separate: concatenation is no better", "prw"),
    ("alignps-table6", "separate: concatenation > AlignPS, true boxes", "cuhk-sysu"),
    ("alignps-table6", "separate: concatenation > AlignPS, true boxes", "prw"),
    ("alignps-table6", "concatenation: joint with RPN > separate", "cuhk-sysu"),
    ("alignps-table6", "concatenation: joint with RPN > separate", "prw"),
}

# Other claims that some records of a row are older than, and others younger: the ledger names the row.
PARTLY_LATE = {
    ("alignps-table1", "P3, P4 detect > P3", "prw"): ("P3",),
    ("alignps-table5", "AFA matters more than the backbone", "cuhk-sysu"): ("plain neck",),
    ("ian-gallery", "gain over JDI-PS (ResNet-50) grows", "cuhk-sysu"): ("IAN (ResNet-50)",),
}


def test_every_claim_was_put_at_risk_by_records_younger_than_it():
    partly = {(item.experiment, item.claim.name, item.set): item.partly_older for item in ledger("tiny")}
    assert {key: rows for key, rows in partly.items() if rows and key not in LATE} == PARTLY_LATE
    for item in ledger("tiny"):
        variants = {EXPERIMENTS[item.experiment].rows[label] for label in item.claim.contrast}
        late = (item.experiment, item.claim.name, item.set) in LATE
        assert not item.predates or variants <= FIRST or late, (item.experiment, item.claim.name, item.older)
    # A claim may use older rows beside younger ones, and then names them; only the first runs are older than all the
    # claims that are made of their variant.
    since: dict[str, set[str]] = {}
    for item in ledger("tiny"):
        for label in item.claim.contrast:
            since.setdefault(EXPERIMENTS[item.experiment].rows[label], set()).add(item.claim_commit)
    known = {commit for commits in since.values() for commit in commits}
    assert known - {""}, "git knows the commit of no claim"
    for record in read_records(paths.results_dir()):
        claims = since.get(record.recipe.name, set())
        if record.recipe.name not in FIRST and claims:
            assert any(is_ancestor(commit, record.commit) for commit in claims), record.path
