"""The real data: Haxby's first subject as measured before, from three layouts of the same recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from data.brain.brain import Brains
from data.brain.clean import Cleaning
from data.brain.images import read_mask
from data.brain.nifti import NiftiBrains
from data.brain.openfmri import OpenFmriBrains
from data.brain.splits import CutRuns, LeaveRunsOut, Splitting

CLASSES = ["bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe"]
SLICE, WHOLE = (
    ("bold_1slice.nii.gz", "../pymvpa_example/mask.nii.gz"),
    ("bold_25mm.nii.gz", "masks/25mm/brain.nii.gz"),
)


@pytest.fixture(scope="module")
def haxby(shared_data: Path) -> Path:
    return shared_data / "fmri" / "haxby2001"


def source(haxby: Path, image: tuple[str, str] = SLICE, lag: float = 0.0, **options) -> OpenFmriBrains:
    return OpenFmriBrains(str(haxby), lag, bold=image[0], mask=image[1], **options)


def accuracy(brains: Brains, model: str, splitting: Splitting | None = None) -> float:
    right = []
    for split in (splitting or LeaveRunsOut()).splits(brains):
        (x, table), (seen, truth) = brains.rows(split.train)["001"], brains.rows(split.test)["001"]
        labels, mean, scale = table["label"].to_numpy(), x.mean(axis=0), x.std(axis=0)
        member = (labels[:, None] == np.array(CLASSES)).astype(float)
        if model == "correlation":
            means = member.T @ (x - mean)
            fit = np.corrcoef(seen - mean, means)[: len(seen), len(seen) :]
        elif model == "ridge":
            fit = Ridge(100.0).fit((x - mean) / scale, member).predict((seen - mean) / scale)
        else:
            lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, labels)
            fit = lda.decision_function(seen)
        right += list(np.array(CLASSES)[fit.argmax(axis=1)] == truth["label"])
    return float(np.mean(right))


@pytest.mark.parametrize(
    ("image", "voxels", "measured"),
    [
        (SLICE, 530, {"correlation": 0.677, "ridge": 0.854, "lda": 0.917}),
        (WHOLE, 129, {"correlation": 0.271, "ridge": 0.396, "lda": 0.438}),
    ],
)
def test_block_means_are_the_arrays_that_were_measured_before(haxby: Path, image, voxels: int, measured: dict):
    brains = source(haxby, image).load()
    brain = brains.subjects["001"]
    assert brain.x.shape == (96, voxels)
    assert brains.candidates == CLASSES
    assert [len(set(of["label"])) for _, of in brain.table.groupby("run")] == [8] * 12
    for model, value in measured.items():
        assert accuracy(brains, model) == pytest.approx(value, abs=1e-3), model


def test_voxels_go_back_to_the_slice(haxby: Path):
    space = source(haxby).load().subjects["001"].space
    assert space is not None
    assert np.array_equal(space.mask, read_mask(haxby / SLICE[1]).mask)
    assert space.volume(np.ones(530)).sum() == 530


def test_the_concatenated_file_with_labels_per_volume_is_the_same_data(haxby: Path):
    folder = haxby.parent / "pymvpa_example"
    one = NiftiBrains(
        [str(folder / "bold.nii.gz")],
        0.0,
        labels=str(folder / "attributes_literal.txt"),
        mask=str(folder / "mask.nii.gz"),
    ).load()
    many = source(haxby).load()
    assert list(one.table["label"]) == list(many.table["label"])
    assert np.allclose(one.subjects["01"].x, many.subjects["001"].x, atol=1e-5)


def test_onset_files_say_what_the_events_say(haxby: Path, tmp_path: Path):
    """Without events.tsv the onset files of `model` are read."""
    for path in haxby.rglob("*"):
        place = tmp_path / "haxby" / path.relative_to(haxby)
        if path.is_file() and not path.name.endswith("events.tsv"):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path.resolve())
    without = OpenFmriBrains(str(tmp_path / "haxby"), 0.0, bold=WHOLE[0], mask=WHOLE[1]).load()
    assert without.table.equals(source(haxby, WHOLE).load().table)


def test_single_volumes_leak_when_runs_are_cut(haxby: Path):
    """Measured before with the 25 mm data: .48 with random folds, .27 with whole runs."""
    volumes = source(haxby, WHOLE, unit="volumes").load()
    assert len(volumes.table) == 12 * 8 * 9
    leaky, honest = accuracy(volumes, "ridge", CutRuns()), accuracy(volumes, "ridge")
    assert honest == pytest.approx(0.27, abs=0.05)
    assert leaky > honest + 0.12


def test_the_labels_are_delayed_already_and_a_lag_makes_it_worse(haxby: Path):
    here = source(haxby)
    (evoked,) = here.evoked()
    assert evoked.rise < 0 < evoked.expected_rise
    assert evoked.best_lag == 0.0
    assert "holds 100% of what that at 0 s would" in evoked.sentence
    assert accuracy(here.at_lag(5.0).load(), "ridge") < accuracy(here.load(), "ridge") - 0.1
    assert here.lag == 0.0


def test_betas_of_single_trials_decode_when_the_shift_is_stated(haxby: Path):
    """The file's onsets are late by a response, so the model's response must start earlier."""
    stated, silent = (
        accuracy(source(haxby, unit="trials", lag=lag, cleaning=Cleaning(confounds=["motion"])).load(), "ridge")
        for lag in (-5.0, 5.0)
    )
    assert stated > 0.7
    assert silent < stated - 0.2
