"""The fMRI report: the honest sentence first, every arm between its limits, and figures that show what was computed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.brain.brain import VoxelSpace
from tasks.experiment.compare import Interval
from tasks.experiment.folder import RunError
from tasks.experiment.report.drawing import sheet
from tasks.experiment.report.estimates import reference_lines
from tasks.fmri import brain_maps, figures, report
from tasks.fmri.derivatives import Weights
from tasks.fmri.explain import explain
from tasks.fmri.metrics import UNITS
from tasks.fmri.report_tables import several
from tasks.fmri.results import read
from tests.tasks.pages import Page


def texts(svg: str | bytes) -> list[str]:
    assert isinstance(svg, str)
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.fixture(scope="module")
def page(finished: Path) -> Page:
    return Page((finished / "report.html").read_text())


def test_the_page_is_whole_and_safe(page: Page):
    assert page.breaches == []
    assert "ShrinkageLDA on toy" in page.words


def test_the_first_sentences_name_rival_chance_null_and_position(finished: Path):
    lead = report.compose(read(finished)).lead
    assert re.match(r"toy is (better than|worse than|not distinguishable from) ridge", lead), "not from position"
    for words in ("chance 0.333", "95 % of label shuffles stay below", "position reaches", "without seeing a brain"):
        assert words in lead


def test_every_figure_of_the_issue_is_there(page: Page):
    keys = {str(attrs["id"]).removeprefix("figure-") for attrs in page.all("figure")}
    assert {"arms", "two-way", "differences", "confusion", "classes", "subjects"} <= keys
    assert {"weights-01-toy", "glass-01-toy", "weights-02-toy", "glass-02-toy", "weights-01-ridge"} <= keys
    assert "open brain-01-toy.html" in page.words


def test_the_forest_has_chance_the_null_and_the_ceiling(finished: Path):
    arms = next(figure for figure in report.result_figures(read(finished)) if figure.key == "arms")
    for words in ("chance", "permuted, p95", "position", "ceiling"):
        assert words in texts(arms.image)


def test_controls_are_told(page: Page):
    for words in ("ridge fitted anew on each of 50 label shuffles", "What a leak is worth", "random folds"):
        assert words in page.words


def test_every_metric_is_shown_per_class_and_per_subject(finished: Path):
    section = next(of for of in report.compose(read(finished)).sections if of.title.startswith("Retrieval"))
    tables = {part.caption.split(".")[0]: part for part in section.parts}
    for kind, parts in (("class", ["cat", "face", "house"]), ("subject", ["01", "02"])):
        table = tables[f"toy per {kind}"]
        assert [row.label for row in table.rows] == [*parts, "chance"]
        assert {"Accuracy ↑", "Two-way ↑", "Forward ↑", "Backward ↑"} == set(table.rows[0].cells)
    assert "Retrieval over 8 galleries of 3 candidates in class cat" in tables["toy per class"].caption


def test_units_of_intervals_stand_in_the_plural():
    assert [several(unit) for unit in UNITS] == ["runs", "stimuli", "labels", "subjects", "samples"]


def test_plot_writes_every_figure_as_a_file(finished: Path):
    names = {path.name for path in report.plot(finished)}
    assert {"arms.svg", "confusion.svg", "weights-01-toy.png", "glass-02-toy.png"} <= names


def test_a_run_that_is_not_complete_says_so(finished: Path, tmp_path: Path):
    run = shutil.copytree(finished, tmp_path / "toy")
    (run / "toy" / "fold1-seed1" / "done.json").unlink()
    (run / "toy" / "fold1-seed1" / "error.txt").write_text("DataError: <b>boom\n\nTraceback")
    (run / "controls" / "leakage" / "done.json").unlink()
    (run / "controls" / "leakage" / "error.txt").write_text("too few")
    composed = report.compose(read(run))
    assert "2 failed" in composed.notice
    again = Page(composed.html())
    assert again.breaches == []
    assert "toy/fold1-seed1 DataError: <b>boom" in again.words
    assert "controls/leakage too few" in again.words


def test_a_folder_with_nothing_but_a_config_has_a_page(finished: Path, tmp_path: Path):
    run = tmp_path / "young"
    run.mkdir()
    shutil.copy(finished / "config.yaml", run)
    composed = report.compose(read(run))
    assert composed.lead == "Nothing can be concluded yet: no unit of toy is finished."
    assert read(run).open == ["chance", "position", "ridge", "toy"]
    assert Page(report.write(run).read_text()).breaches == []
    with pytest.raises(RunError, match="not a run folder"):
        report.write(tmp_path / "nowhere")


def test_a_run_of_some_folds_does_not_look_like_the_study(finished: Path, tmp_path: Path):
    assert "A first look" not in report.compose(read(finished)).notice
    run = shutil.copytree(finished, tmp_path / "toy")
    for unit in run.glob("*/fold[123]-seed1"):
        shutil.rmtree(unit)
    assert report.compose(read(run)).notice == "A first look, not the study: 1 of 4 folds was run."


def test_an_explanation_shows_the_most_used_voxel_where_it_is(finished: Path, tmp_path: Path):
    run = shutil.copytree(finished, tmp_path / "toy")
    (path,) = explain(run, "01")
    page = Page(path.read_text())
    assert explain(run, "sub-01", "ridge") != [path], "another arm has a page of its own"
    assert page.breaches == []
    assert (path.parent / "brain.html").stat().st_size > 0
    maps = {p.name: p for p in path.parent.glob("sub-01/func/*_weights.nii.gz")}
    assert len(maps) == 3
    assert "A weight says what the decoder reads" in page.words


def test_a_confusion_matrix_shows_shares_of_rows():
    counts = np.array([[3, 1], [0, 4]])
    figure = figures.confusion(counts, ["cat", "house"], "ridge", "8 samples")
    assert [text for text in texts(figure.image) if text.startswith((".", "1."))] == [".75", ".25", "1.00"]
    assert "Most often cat is taken for house (0.25)." in figure.caption


def test_an_evoked_response_marks_the_stated_lag_and_says_its_peak():
    seconds = np.arange(-4.0, 12.1, 2.0)
    of = pd.DataFrame({"seconds": seconds, "mean": np.exp(-((seconds - 6) ** 2) / 8), "error": 0.05})
    figure = figures.evoked(of.assign(subject="01", lag=4.0, duration=2.0, events=30))
    assert "stated lag 4 s" in texts(figure.image)
    assert "highest 6 s after the labelled onset; stated lag 4 s" in figure.alt
    assert figure.n == "30 events, 1 subject"


def test_a_sweep_warns_of_choosing_the_best_lag():
    values = [Interval(0.3, 0.2, 0.4), Interval(0.7, 0.6, 0.8), Interval(0.5, 0.4, 0.6)]
    figure = figures.lag_sweep([-2.0, 0.0, 2.0], values, 0.0, "ridge", "9 samples", {"chance": 0.33})
    assert "picking the best one here (0 s) would look at the samples it is scored on" in figure.caption


def test_reference_words_that_would_touch_stand_on_levels_of_their_own():
    with sheet("levels", 200) as drawn:
        axes = drawn.canvas.subplots()
        axes.set_xlim(0, 1)
        reference_lines(axes, {"permuted, p95": 0.19, "chance": 0.125, "ceiling": 0.9, "position": 0.27})
        heights = {text.get_text(): text.xyann[1] for text in axes.texts}
    assert len({heights["chance"], heights["permuted, p95"], heights["position"]}) == 3
    assert heights["ceiling"] == heights["chance"]


def test_maps_go_back_to_their_voxels():
    mask = np.zeros((4, 3, 2), dtype=bool)
    mask[1:3, 1, :] = True
    space = VoxelSpace(mask, np.array([[2.0, 0, 0, -10], [0, 2, 0, 5], [0, 0, 4, 7], [0, 0, 0, 1]]))
    np.testing.assert_array_equal(brain_maps.millimetres(space, 0), [-8, 7, 7])
    np.testing.assert_array_equal(brain_maps.millimetres(space, 3), [-6, 7, 11])
    weights = Weights("01", "ridge", space, {"a": np.array([1.0, -2, 0, 0]), "b": np.array([1.0, 2, 0, 4])})
    np.testing.assert_allclose(brain_maps.strength(weights.maps), [1, 2, 0, np.sqrt(8)])
    assert brain_maps.slices(weights).image[:4] == b"\x89PNG"
