"""The generic report: self-contained, escaped, described, and the same bytes every time."""

from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from tasks.experiment.folder import RunError
from tasks.experiment.report import (
    Facts,
    Failure,
    Failures,
    Figure,
    Listing,
    Measured,
    MetricRow,
    MetricTable,
    Prose,
    Report,
    Section,
    Table,
    numbers,
)
from tasks.experiment.report.drawing import sheet
from tasks.experiment.report.estimates import Estimate, dots, forest
from tasks.experiment.report.palette import DATA, PAGE, css, themed
from tests.tasks.pages import Page

EVIL = '<script>alert("x")</script>'


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 3), "white").save(out, "PNG")
    return out.getvalue()


def drawn(key: str = "line") -> Figure:
    with sheet(key, 120) as page:
        axes = page.canvas.subplots()
        axes.plot([0.123456, 1.987654], [0, 1], label=EVIL)
        axes.text(0.5, 0.5, "0.12345")
        axes.legend()
    return Figure(key, page.svg, "A line", "It rises.", "2 points", "a rising line")


def full_report() -> Report:
    table = MetricTable(
        {"C-index ↑": "Harrell", "Brier ↓": ""},
        [
            MetricRow("ceiling", {"C-index ↑": Measured(0.71)}, "ceiling"),
            MetricRow(
                EVIL, {"C-index ↑": Measured(0.62, 0.57, 0.67), "Brier ↓": Measured(float("nan"), note="why")}, "own"
            ),
            MetricRow("chance", {"C-index ↑": Measured(0.5)}, "chance"),
        ],
        "373 patients",
    )
    estimates = [Estimate("ours", 0.62, 0.57, 0.67, "own", [0.6, 0.64]), Estimate("theirs", 0.6, folds=[0.5, 0.7])]
    figures = [
        drawn(),
        drawn("second"),
        Figure("photo", png(), "Photo", "A slide.", "1 slide", f"a photo of {EVIL}"),
        forest("forest", estimates, title="T", axis="c", caption="c", n="2 arms", lines={"chance": 0.5}),
        dots("dots", estimates, title="T", axis="c", caption="c", n="2 arms"),
    ]
    return Report(
        title=f"Patient {EVIL}",
        lead=f"Nothing beats {EVIL}.",
        notice="not complete",
        context="survival",
        sections=[
            Section("Result & more", [Prose([EVIL]), table, Table(["a", "b"], [[EVIL, 1.5]], "numbers")]),
            Section("Figures", figures),
            Section("Failures", [Failures([Failure("cmta/fold0-seed1", EVIL, EVIL)])]),
            Section(
                "Environment", [Facts({"versions": {"torch": EVIL}, "devices": ["cpu", "gpu"]}), Listing(EVIL, EVIL)]
            ),
            Section("Repeat", [Listing(f"survival train {EVIL}")]),
        ],
    )


def test_a_page_is_balanced_self_contained_and_described():
    html = full_report().html()
    page = Page(html)
    assert page.breaches == []
    assert html.startswith("<!doctype html>")
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert not re.search(r"url\((?!#|\"?data:)", html)
    assert all(attrs.get("aria-label") for attrs in page.all("div") if attrs.get("class") == "drawing")
    assert "default-src 'none'" in html


def test_whatever_a_name_holds_is_shown_and_never_run():
    html = full_report().html()
    assert "<script" not in html
    assert Page(html).words.count(EVIL) >= 7


def test_both_themes_and_paper_are_served():
    html = full_report().html()
    for query in ("prefers-color-scheme: dark", "@media print", "overflow-x: auto"):
        assert query in html
    assert all(f"--{name}:" in css() for name in (PAGE | DATA))


def test_a_report_without_failures_says_so_and_folds_nothing_away():
    page = Page(Report("t", "l", [Section("Failures", [Failures([])])]).html())
    assert "No unit failed." in page.words
    assert page.breaches == []


def test_the_same_report_is_the_same_bytes():
    assert full_report().html() == full_report().html()


def test_a_figure_is_small_and_keeps_its_numbers_as_they_were_written():
    figure = drawn()
    assert isinstance(figure.image, str)
    assert len(figure.image) < 12_000
    assert ">0.12345<" in figure.image
    assert "<metadata" not in figure.image
    assert len(drawn("a").image) == len(drawn("b").image)


def test_an_inlined_figure_follows_the_page_and_a_saved_one_stands_alone(tmp_path: Path):
    figure = drawn()
    assert "var(--ink, #1d2126)" in figure.inline
    assert "font-family:" not in figure.inline
    saved = figure.save(tmp_path / "figures")
    assert saved.name == "line.svg"
    assert "var(" not in saved.read_text()
    assert Figure("p", png(), "t", "c", "1", "alt").save(tmp_path).read_bytes() == png()


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(mpl.rcParams)
    drawn()
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("<svg><script/></svg>", "may not contain <script>"),
        ("<svg><g onclick='x()'/></svg>", "may not carry onclick"),
        ("<svg><image href='https://elsewhere/x.png'/></svg>", "may not carry href='https://elsewhere/x.png'"),
        ("<svg><g></svg>", "not a well-formed SVG"),
        (b"GIF89a..", "the bytes are not a PNG"),
    ],
)
def test_a_figure_that_is_more_than_a_picture_is_refused(image: str | bytes, text: str):
    with pytest.raises(ValueError, match=text):
        Figure("bad", image, "t", "c", "3 patients", "alt")


def test_a_figure_without_words_is_refused():
    with pytest.raises(ValueError, match="figure 'mute': 'alt' is empty"):
        Figure("mute", png(), "t", "c", "3 patients", " ")
    with pytest.raises(ValueError, match="figure 'mute': 'n' is empty"):
        Figure("mute", png(), "t", "c", "", "alt")


def test_tables_refuse_cells_without_a_column():
    with pytest.raises(ValueError, match=r"row 'age': no column 'AUC'; there are \['C-index'\]"):
        MetricTable({"C-index": ""}, [MetricRow("age", {"AUC": Measured(0.5)})], "c")
    with pytest.raises(ValueError, match="a row has 1 cells, the header has 2"):
        Table(["a", "b"], [[1]], "t")


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = full_report().write(tmp_path / "deep" / "report.html")
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RunError, match="the disk is full"):
        Report("other", "l", []).write(path)
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.6243, "0.624"), (-0.0004, "0.000"), (-0.012, "−0.012"), (float("nan"), "undefined"), (None, "undefined")],
)
def test_numbers_have_fixed_digits_and_a_true_minus(value: float | None, text: str):
    assert numbers.decimal(value) == text


def test_a_difference_carries_its_sign_except_zero():
    assert [numbers.decimal(x, signed=True) for x in (0.02, -0.02, 0.0)] == ["+0.020", "−0.020", "0.000"]
    assert numbers.interval(0.1, None) == numbers.interval(float("nan"), 1.0) == ""


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.011, "p = 0.011"), (0.06, "p = 0.060"), (0.5, "p = 0.50"), (6.6e-4, "p = 6.6 × 10⁻⁴"),
        (0.0013, "p = 0.0013"),
        (4e-31, "p = 4.0 × 10⁻³¹"), (0.0, "p < 10⁻³⁰⁰"), (1.0, "p = 1.0"), (float("nan"), "p undefined"),
    ],
)  # fmt: skip
def test_p_values_keep_two_digits(p: float, text: str):
    assert numbers.p_value(p) == text


def linear(hexadecimal: str) -> np.ndarray:
    rgb = np.array([int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """WCAG 2.1 contrast ratio."""
    high, low = sorted((float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_page(theme: str):
    colour = {name: getattr(c, theme) for name, c in (PAGE | DATA).items()}
    for ground in ("paper", "panel", "own"):
        assert contrast(colour["ink"], colour[ground]) > 7
        assert contrast(colour["quiet"], colour[ground]) > 4.5
    for name in DATA:
        assert contrast(colour[name], colour["paper"]) > 3


# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
PROTAN = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
DEUTAN = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("seen", [np.eye(3), PROTAN, DEUTAN], ids=["all", "protan", "deutan"])
def test_the_colours_of_risk_groups_differ_for_every_reader(theme: str, seen: np.ndarray):
    colours = [getattr(DATA[name], theme) for name in ("blue", "amber", "vermillion")]
    mixed = np.clip(np.stack([seen @ linear(c) for c in colours]), 0, 1)
    lab = rgb2lab(np.where(mixed <= 0.0031308, 12.92 * mixed, 1.055 * mixed ** (1 / 2.4) - 0.055)[None])[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(3, 1)]
    assert apart.min() > 12
    assert apart[0] > 40  # blue and amber, and blue and vermillion below: the pair of a median split
    assert apart[1] > 40


def test_theming_touches_colours_of_the_palette_only():
    assert themed("fill: #0067A5; stroke: #123456") == "fill: var(--blue, #0067a5); stroke: #123456"


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (Path(__file__).resolve().parents[2] / "docs" / "reports.md").read_text()
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert example is not None
    monkeypatch.chdir(tmp_path)
    exec(example[1], {})
    assert Page((tmp_path / "report.html").read_text()).breaches == []


def test_lines_far_from_arms_that_hardly_differ_stay_inside_the_picture():
    arms = [Estimate("ours", 0.995, 0.99, 1.0, "own"), Estimate("ridge", 0.996, 0.99, 1.0, "baseline")]
    words = {"title": "t", "axis": "a", "caption": "c", "n": "2 runs"}
    # Matplotlib warns, which is an error here, when words far outside leave no room for the axes.
    assert "chance 0.500" in forest("near", arms, lines={"chance": 0.5}, **words).alt
