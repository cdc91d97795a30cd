"""REPRODUCED.md: a table replaces its former self and touches nothing else."""

from pathlib import Path

from tasks.reproduce import icl_linear_regression
from tasks.reproduce.rows import Result, at_least, at_most, close, result
from tasks.reproduce.writing import LONG, write_section


def outcome(ours: float, rows: int = 1) -> Result:
    return result("toy", [close(f"a | b {row}", 0.5, ours, 0.01, "said | so") for row in range(rows)])


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
    assert second.startswith("# Reproduced\n\nBefore.\n")
    assert second.endswith("## Another paper\n\nAfter.\n")
    assert "NOT reproduced, 0 of 1 rows" in first
    assert "`fusion reproduce toy --small`: reproduced, 1 of 1 rows" in second


def test_a_missing_file_is_made_and_names_cannot_break_the_table(tmp_path: Path):
    page = written(tmp_path / "REPRODUCED.md", outcome(0.5))
    assert page.startswith("# Reproduced\n")
    assert r"| a \| b 0 | 0.5 | 0.5 | 0.01 | yes | said \| so |" in page


def test_a_long_table_is_folded(tmp_path: Path):
    assert "<details>" not in written(tmp_path / "short.md", outcome(0.5, LONG))
    assert f"<summary>{LONG + 1} rows</summary>" in written(tmp_path / "long.md", outcome(0.5, LONG + 1))


def test_bounds_hold_on_their_side_and_never_for_nan():
    assert at_most("x", 0.5, 0.4, 0.0, "")["ok"]
    assert not at_most("x", 0.5, 0.6, 0.05, "")["ok"]
    assert at_least("x", 0.5, 0.6, 0.0, "")["ok"]
    assert not at_least("x", 0.5, 0.4, 0.05, "")["ok"]
    assert not any(rule("x", 0.5, float("nan"), 0.1, "")["ok"] for rule in (close, at_least, at_most))
