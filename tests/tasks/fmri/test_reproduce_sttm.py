"""The page of a reproduction, and the curve of the few-shot one."""

from __future__ import annotations

from pathlib import Path

from tasks.catalogue import reproduction_page
from tasks.reproduce.rows import at_least, close, result
from tasks.reproduce.sttm import ADAPTER, TRUNK, figures


def rows() -> list:
    """Two arms at two numbers of images, and rows of other kinds."""
    points = {(ADAPTER, 5): 0.1, (ADAPTER, 10): 0.15, (TRUNK, 5): 0.17, (TRUNK, 10): 0.23}
    found = [
        close(
            f"{arm}, n {n}, top-1",
            value,
            value,
            0.01,
            "",
            kind="measured",
            low=value - 0.02,
            high=value + 0.02,
            line=arm,
            at=float(n),
        )
        for (arm, n), value in points.items()
    ]
    return [
        *found,
        close(f"{ADAPTER}, n 5, top-5", 0.5, 0.7, 0.05, "", kind="measured", low=0.4, high=0.5),
        at_least(f"{TRUNK} minus {ADAPTER}, n 5, top-1", 0.0, 0.07, 0.0, "semi-real, 15 people", kind="bar"),
    ]


def test_the_curve_holds_every_arm_at_every_number():
    (drawn,) = figures(rows())
    assert f"{ADAPTER}: 5 0.100, 10 0.150; {TRUNK}: 5 0.170, 10 0.230" in drawn.alt.replace("0.10,", "0.100,")
    assert figures([]) == []


def test_the_page_says_what_holds_and_what_does_not(tmp_path: Path):
    page = reproduction_page("sttm", result("sttm", rows()), tmp_path / "page.html").read_text()
    assert "In part: 5 of 6 claims hold" in page
    assert "0.15 to 0.19" in page, "an interval is shown where there is one"
    assert "What a trunk of other people is worth" in page
    assert "semi-real, 15 people" in page


def test_a_paper_that_draws_nothing_has_a_page_of_rows(tmp_path: Path):
    page = reproduction_page("rsa92", result("rsa92", rows()), tmp_path / "page.html").read_text()
    assert "Reproduction: rsa92" in page
    assert "<svg" not in page
