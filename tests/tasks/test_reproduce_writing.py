"""REPRODUCED.md: a table replaces its former self and touches nothing else."""

import datetime
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tasks.catalogue import PAPERS, Paper, listing
from tasks.cli import main
from tasks.reproduce import icl_linear_regression
from tasks.reproduce.rows import Result, at_least, at_most, close, described, result, verdict
from tasks.reproduce.status import NOT_YET, states
from tasks.reproduce.table import cells
from tasks.reproduce.writing import LONG, write_section

ROOT = Path(__file__).resolve().parents[2]


def outcome(ours: float, rows: int = 1) -> Result:
    return result("toy", [close(f"a | b {row}", 0.5, ours, 0.01, "said | so", kind="bar") for row in range(rows)])


def written(path: Path, made: Result) -> str:
    write_section(path, "A toy (Somebody, 2020)", icl_linear_regression, made, small=True)
    return path.read_text()


def test_a_section_is_added_once_and_replaced_afterwards(tmp_path: Path):
    path = tmp_path / "REPRODUCED.md"
    path.write_text("# Reproduced\n\nBefore.\n")
    first = written(path, outcome(0.6))
    path.write_text(first + "\n## Another paper\n\nAfter.\n")
    second = written(path, outcome(0.5))
    assert second.count("## A toy") == 1
    assert second.startswith("# Reproduced\n\n<!-- status: written by the command -->\n")
    assert "<!-- status: end -->\n\nBefore.\n" in second
    assert second.endswith("## Another paper\n\nAfter.\n")
    assert "not reproduced: 0 of 1 claims hold" in first
    assert "`fusion reproduce toy --small`: reproduced: 1 of 1 claims hold." in second


def test_a_missing_file_is_made_and_names_cannot_break_the_table(tmp_path: Path):
    page = written(tmp_path / "REPRODUCED.md", outcome(0.5))
    assert page.startswith("# Reproduced\n")
    assert r"| a \| b 0 | 0.5 | bar | 0.5 | - | 0.01 | yes | said \| so |" in page


def test_a_long_table_is_folded(tmp_path: Path):
    assert "<details>" not in written(tmp_path / "short.md", outcome(0.5, LONG))
    assert f"<summary>{LONG + 1} rows</summary>" in written(tmp_path / "long.md", outcome(0.5, LONG + 1))


def test_bounds_hold_on_their_side_and_never_for_nan():
    assert at_most("x", 0.5, 0.4, 0.0, "", kind="bar")["ok"]
    assert not at_most("x", 0.5, 0.6, 0.05, "", kind="bar")["ok"]
    assert at_least("x", 0.5, 0.6, 0.0, "", kind="bar")["ok"]
    assert not at_least("x", 0.5, 0.4, 0.05, "", kind="bar")["ok"]
    assert not any(rule("x", 0.5, float("nan"), 0.1, "", kind="bar")["ok"] for rule in (close, at_least, at_most))


def test_what_describes_counts_neither_as_held_nor_as_failed():
    point = described("a point", 0.7, "", low=0.6, high=0.8, n=1200, of="queries", seeds=[1, 2])
    held, failed = (at_least("claim", bar, 0.5, 0.0, "", kind="rival") for bar in (0.4, 0.6))
    assert (point["ok"], point["against"], point["tolerance"], point["kind"]) == (None, None, None, "none")
    assert verdict(result("p", [point, held])) == "reproduced: 1 of 1 claims hold"
    assert verdict(result("p", [point, held, failed])) == "in part: 1 of 2 claims hold"
    assert verdict(result("p", [point, failed])) == "not reproduced: 0 of 1 claims hold"
    assert not result("p", [point])["ok"], "a paper without a claim is not reproduced"
    assert cells(point) == ["a point", "-", "none", "0.7", "0.6 to 0.8", "-", "-", "1,200 queries; 2 seeds"]


def test_a_block_says_intervals_seeds_and_how_many_rows_describe(tmp_path: Path):
    rows = [close("a", 0.5, 0.5, 0.01, "", kind="measured", seeds=[3, 1]), described("b", 0.6, "", low=0.55, high=0.65)]
    page = written(tmp_path / "REPRODUCED.md", result("toy", rows))
    assert "reproduced: 1 of 1 claims hold, 1 more row describes. " in page
    assert "Seeds 1, 3." in page
    assert "| b | - | none | 0.6 | 0.55 to 0.65 | - | - |  |" in page


def test_the_status_table_has_every_paper_and_is_what_the_list_reads(tmp_path: Path):
    path, order = tmp_path / "REPRODUCED.md", ["first", "toy", "last"]
    for ours, state in ((0.6, "not reproduced: 0 of 1 claims hold"), (0.5, "reproduced: 1 of 1 claims hold")):
        write_section(path, "A toy", icl_linear_regression, outcome(ours), False, "simulated", order)
        today = datetime.date.today()
        assert f"| toy | {state} | simulated | {today} | none needed |" in path.read_text()
        assert states([tmp_path / "nowhere.md", path]) == {
            "first": NOT_YET,
            "toy": f"{state} ({today})",
            "last": NOT_YET,
        }
    assert path.read_text().count("| toy |") == 1
    assert states([tmp_path / "nowhere.md"]) == {}


def test_the_list_shows_the_states_of_this_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shown = {row["key"]: row["state"] for row in listing("papers")}
    assert shown == {key: NOT_YET for key in PAPERS} | states([ROOT / "REPRODUCED.md"])
    write_section(Path("REPRODUCED.md"), "Theirs", icl_linear_regression, outcome(0.5), False, "x", list(PAPERS))
    assert {row["state"] for row in listing("papers")} == {NOT_YET}, "your own file is read first"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A paper that can be reproduced from a folder of its own; gives the forms that were run."""
    ran: list[bool] = []

    def run(data_root: None, small: bool) -> Result:
        ran.append(small)
        return outcome(0.5)

    module = ModuleType("toy_paper", "toy: a number and itself.\n\nNothing is computed.")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_paper", module)
    monkeypatch.setitem(PAPERS, "toy", Paper("A toy", "toy_paper", "", "simulated"))
    monkeypatch.chdir(tmp_path)
    return ran


def reproduce(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fusion", "reproduce", "toy", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_small_form_replaces_its_like_and_never_the_full_form(
    toy: list[bool], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    page = Path("REPRODUCED.md")
    for form in (["--small"], ["--small"], [], []):
        assert reproduce(monkeypatch, *form, "--write") == 0
        assert ("(small form)" in page.read_text()) == bool(form)
    before, ran = page.read_text(), list(toy)
    capsys.readouterr()
    assert reproduce(monkeypatch, "--small", "--write") == 2
    said = capsys.readouterr()
    assert said.err.startswith("fusion: REPRODUCED.md: its block of toy is of the full form, which --small would")
    assert (said.err.count("\n"), said.out, page.read_text(), toy) == (1, "", before, ran)
    assert reproduce(monkeypatch, "--small") == 0, "without --write it is only shown"


def test_what_could_not_be_written_is_refused_before_anything_is_run(
    toy: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    Path("file").touch()
    for arguments, message in (
        (["--report", "file/x.html"], "file/x.html: file is a file, so no folder of that name can hold it"),
        (["--report", "."], ".: a folder, and a file is wanted"),
    ):
        assert reproduce(monkeypatch, *arguments) == 2
        assert capsys.readouterr().err.startswith(f"fusion: {message}")
    Path("REPRODUCED.md").write_bytes(b"\xff")
    assert reproduce(monkeypatch, "--report", "x.html", "--write") == 2
    assert capsys.readouterr().err.startswith("fusion: REPRODUCED.md: not text in UTF-8")
    Path("REPRODUCED.md").unlink()
    Path("REPRODUCED.md").mkdir()
    assert reproduce(monkeypatch, "--report", "x.html", "--write") == 2
    assert capsys.readouterr().err.startswith("fusion: REPRODUCED.md: a folder, and a file is wanted")
    assert toy == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["REPRODUCED.md", "file"], "nothing is left behind"
