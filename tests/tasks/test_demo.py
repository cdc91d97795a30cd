"""The demo: what a verdict may say, one page of several reports, a failing part stops no other, the demo itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.demo import gallery, run
from tasks.demo import parts as parts_of_demo
from tasks.demo.page import NAME, Ended, compose
from tasks.demo.parts import PARTS, Part
from tasks.demo.verdict import Verdict, comparisons
from tasks.experiment.config import build, experiment_class, overlay, resolve
from tasks.experiment.report import Failure, Figure, Prose, Report, Section
from tasks.experiment.report.estimates import Estimate, forest
from tasks.survival.metrics import compare_arms
from tasks.survival.results import read
from tests.tasks.pages import Page
from tests.tasks.test_report_chromium import measured

DOCS = Path(__file__).resolve().parents[2] / "docs"
EVIL = "<script>alert(1)</script>"


def verdict(*rows: tuple[str, float, float, float], **more: Any) -> Verdict:
    """Of a model that reaches .5: other arm, difference, low, high."""
    table = pd.DataFrame(
        [
            {"a": "ours", "b": b, "a_value": 0.5, "b_value": 0.5 - d, "difference": d, "low": low, "high": high, "n": 9,
             "sentence": ""}
            for b, d, low, high in rows
        ]
    )  # fmt: skip
    return Verdict("accuracy", comparisons(table), **more)


BETTER, EVEN, WORSE = ("x", 0.2, 0.1, 0.3), ("y", 0.1, -0.1, 0.3), ("z", -0.1, -0.2, -0.05)


def test_a_verdict_says_what_the_intervals_allow():
    won = verdict(BETTER, chance=0.1, ceiling=0.9)
    assert won.beats_all
    assert won.sentence == (
        "ours is better than the other arm in accuracy: 0.500 against 0.300 of the strongest, x (difference +0.200, "
        "95 % interval +0.100 to +0.300); chance is 0.100, the ceiling 0.900, and 50% of the way between them is "
        "reached."
    )
    mixed = verdict(BETTER, EVEN, WORSE, chance=0.0005)
    assert not mixed.beats_all
    assert mixed.sentence.startswith(
        "ours is better than 1 of 3 other arms, not distinguishable from y and worse than z in accuracy: 0.500 against "
        "0.600 of the strongest, z"
    )
    assert mixed.row["chance"] == "0.0005", "a small chance is not shown as none"
    unknown = verdict(("x", 0.2, float("nan"), float("nan")))
    assert not unknown.beats_all
    assert "not distinguishable from x" in unknown.sentence


def test_where_less_is_better_the_sides_are_turned():
    lower = verdict(BETTER, WORSE, higher_is_better=False)
    assert lower.strongest.b == "x", "the other arm with the lowest value"
    assert lower.sentence.startswith("ours is better than 1 of 2 other arms and worse than x")
    assert verdict(WORSE, higher_is_better=False).beats_all


def test_arms_that_are_no_competitors_are_left_out():
    numbers = dict.fromkeys(("a_value", "b_value", "difference", "low", "high"), 1.0)
    table = pd.DataFrame([{"a": "o", "b": b, "n": 1, "sentence": "", **numbers} for b in ("x", "ceiling")])
    assert [one.b for one in comparisons(table, ("ceiling",))] == ["x"]


def report(name: str) -> Report:
    """With a figure whose key every report has."""
    drawn = forest(
        "arms", [Estimate(name, 0.5, 0.4, 0.6, "own")], title=name, axis="a", caption="c", n="1", lines={"l": 0.0}
    )
    return Report(name, "lead", [Section("Result", [Prose([f"of {name}"])]), Section("Figures", [drawn]),
                                 Section("Data", [Prose([f"hidden {name}"])])])  # fmt: skip


def part(task: str, **more: Any) -> Part:
    given = {"page": lambda run: report(task), "verdicts": lambda run: [verdict(BETTER)]} | more
    return Part(task, f"{task.title()}: part", f"about {task} {EVIL}", **given)


@pytest.fixture
def parts() -> list[Part]:
    return [part("survival"), part("fmri"), part("melody")]


def test_reports_of_several_tasks_are_one_sound_page(parts: list[Part]):
    page = Page(compose([Ended(p, p.run(Path("runs")), p.page(Path()), p.verdicts(Path())) for p in parts]).html())
    assert page.breaches == [], "figures of the same name in two reports share no id"
    assert "In 3 of 3 parts the model under test is better than every baseline and rival" in page.words
    for p in parts:
        assert f"of {p.task}" in page.words
        assert f"hidden {p.task}" not in page.words
        assert f"{p.task} train -c {p.task}/demo --jobs 2" in page.words
    assert page.words.count(EVIL) == 3


def test_a_figure_keeps_its_references_under_another_name():
    image = '<svg xmlns="http://www.w3.org/2000/svg"><g id="a-b"/><use href="#a-b"/><g clip-path="url(#a-c)"/></svg>'
    moved = Figure("a", image, "t", "c", "1", "alt").under("melody")
    assert moved.key == "melody-a"
    assert re.findall(r'(?:id="|#)([\w-]+)', str(moved.image)) == ["melody-a-b", "melody-a-b", "melody-a-c"]


def test_a_part_that_was_not_measured_is_told_and_not_counted(parts: list[Part]):
    lost = Failure("fmri", f"no disk {EVIL}", "everything")
    html = compose(
        [
            Ended(parts[0], Path("a"), report("survival"), [verdict(EVEN)]),
            Ended(parts[1], Path("b"), failure=lost),
        ]
    ).html()
    page = Page(html)
    assert page.breaches == []
    assert "1 of 2 parts did not end well: fmri. The others are complete." in page.words
    assert "In 0 of 1 part the model under test is better" in page.words
    assert "not so in survival, where the part says what was seen" in page.words
    assert f"no disk {EVIL}" in page.words


class FakeTask:
    """Trains as it is told to."""

    def __init__(self, ending: object, calls: list[tuple[str, bool]]):
        self.ending, self.calls = ending, calls

    def train(self, files: list[str], overrides: list[str], jobs: int, resume: bool) -> int:
        self.calls.append((files[0], resume))
        if isinstance(self.ending, BaseException):
            raise self.ending
        return int(str(self.ending))


@pytest.mark.parametrize(
    ("ending", "told"), [(ValueError("no such\nfile"), "no such file"), (1, "not every unit finished")]
)
def test_a_part_that_fails_stops_no_other_and_shows_in_the_exit_code(
    ending: object, told: str, parts: list[Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls: list[tuple[str, bool]] = []
    endings = {"survival": 0, "fmri": ending, "melody": 0}
    monkeypatch.setattr(run, "task_named", lambda name: FakeTask(endings[name], calls))
    begun = parts[2].run(tmp_path)
    begun.mkdir(parents=True)
    (begun / "config.yaml").write_text("x")
    assert run.demo(tmp_path, parts, tmp_path / "docs") == 1
    assert calls == [("survival/demo", False), ("fmri/demo", False), ("melody/demo", True)], "what was begun goes on"
    words = Page((tmp_path / NAME).read_text()).words
    assert "1 of 3 parts did not end well: fmri" in words
    assert told in words
    assert "of melody" in words
    assert not (tmp_path / "docs").exists(), "a gallery is of a demo without failure"


def test_a_page_that_cannot_be_made_is_a_failure_too(
    parts: list[Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(run: Path) -> Report:
        raise KeyError("no such arm")

    monkeypatch.setattr(run, "task_named", lambda name: FakeTask(0, []))
    assert run.demo(tmp_path, [part("fmri", page=broken), parts[0]]) == 1
    assert "no such arm" in Page((tmp_path / NAME).read_text()).words
    assert run.demo(tmp_path, [parts[0]]) == 0


def test_an_interruption_ends_the_demo(parts: list[Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "task_named", lambda name: FakeTask(KeyboardInterrupt(), []))
    with pytest.raises(KeyboardInterrupt):
        run.demo(tmp_path, parts)


@pytest.mark.parametrize("one", PARTS, ids=[one.task for one in PARTS])
def test_a_part_is_a_shipped_config_of_its_task_on_made_data(one: Part, tmp_path: Path):
    tree = overlay([one.config])
    assert tree["task"] == one.task
    experiment = experiment_class(tree)
    built = build(experiment, resolve(experiment, tree))
    assert built.name == one.run(tmp_path).name
    source = next(tree[key] for key in ("cohort", "brains", "music", "pairs") if key in tree)
    assert source["class_path"] in {"SimulatedCohort", "SimulatedBrains", "GeneratedSongs", "Scenes"}
    assert set(gallery.CHOSEN) == {p.task for p in PARTS}


def test_a_right_and_a_wrong_hit_are_shown_as_they_come():
    columns = ["arm", "seed", "gallery_name", "direction", "score", "query", "rank"]
    asked = (parts_of_demo.GALLERY, parts_of_demo.DIRECTION, "own")
    rows = [
        ("global", 1, *asked, "a", 1.0),
        ("ours", 1, "test", *asked[1:], "b", 1.0),
        ("ours", 1, *asked[:2], "pooled", "c", 1.0),
        ("ours", 2, *asked, "d", 1.0),
        ("ours", 1, *asked, "e", 3.0),
        ("ours", 1, *asked, "f", 2.0),
        ("ours", 1, *asked, "g", 1.0),
    ]
    shown = parts_of_demo.right_and_wrong
    assert shown(pd.DataFrame(rows, columns=columns), "ours") == {"right": "g", "wrong": "e"}
    assert shown(pd.DataFrame(rows[:-1], columns=columns), "ours") == {"wrong": "e"}


def test_the_gallery_in_docs_is_small_and_whole():
    page = (DOCS / gallery.PAGE).read_text()
    shown = re.findall(r"\]\((gallery/[\w.-]+)\)", page)
    assert len(shown) == len(set(shown)) == sum(map(len, gallery.CHOSEN.values())) + 1
    assert {path.relative_to(DOCS).as_posix() for path in (DOCS / gallery.PICTURES).iterdir()} == set(shown)
    assert max((DOCS / path).stat().st_size for path in shown) <= gallery.MOST_BYTES
    assert not re.search(r"!\[\s*\]", page), "every picture says what it shows"


def test_a_picture_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gallery, "MOST_BYTES", 100)
    monkeypatch.setattr(gallery, "CHOSEN", {"fmri": ("arms",)})
    ended = [Ended(part("fmri"), Path("a"), report("fmri"), [])]
    with pytest.raises(ValueError, match=r"fmri-arms\.svg has [\d,]+ bytes, over 100; choose another figure"):
        gallery.write(ended, tmp_path)
    monkeypatch.setattr(gallery, "CHOSEN", {"fmri": ("bars",)})
    with pytest.raises(ValueError, match=r"a has no figure 'bars' \(there are arms\); repeat `fusion demo`"):
        gallery.write(ended, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Fusion pays on the cohort where it can, every part is on the page, and a second call only reads."""
    monkeypatch.chdir(tmp_path)
    runs, docs = Path("runs"), tmp_path / "docs"
    assert run.demo(runs, gallery=docs) == 0
    page = Page((runs / NAME).read_text())
    assert page.breaches == []
    assert len((runs / NAME).read_bytes()) < 3_000_000
    for width in (390, 1280):
        seen = measured((tmp_path / runs / NAME).resolve(), width, tmp_path)
        assert (seen["out"], seen["clipped"], seen["wide"]) == ([], [], width)
    for one in PARTS:
        assert (one.run(runs) / "report.html").is_file()
        verdicts = one.verdicts(one.run(runs))
        assert verdicts
        assert all(said.sentence in page.words for said in verdicts)
        titles = {section.title for section in one.page(one.run(runs)).sections}
        assert set(one.shown) <= titles
    predictions = read(PARTS[0].run(runs)).predictions
    for single in ("slides alone (ABMIL)", "genes alone (SNN)", "ridge genes"):
        gain = compare_arms(predictions, "demo_fusion", single).difference
        assert gain.value >= 0.03
        assert gain.low > 0
    assert {path.name for path in (docs / gallery.PICTURES).iterdir()} == {
        path.name for path in (DOCS / gallery.PICTURES).iterdir()
    }
    capsys.readouterr()
    assert run.demo(runs) == 0
    said = capsys.readouterr().err
    assert said.count("done before") > 80
    assert not re.search(r"\] .* [\d.]+ s$", said, re.MULTILINE), "no unit is run twice"
