"""What becomes of a run: cleaning that knows no other run, block means, single-trial betas, repeats within a side."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.brain.brain import Brain, Brains, sample_table
from data.brain.clean import Cleaning, confounds_of, read_confounds
from data.brain.evoked import canonical_rise, evoked_response
from data.brain.images import masked, open_bold, read_mask
from data.brain.nifti import NiftiBrains
from data.brain.split import Split
from data.brain.splits import CutRuns, LeaveRunsOut
from data.brain.units import Run, average_repeats, design, samples_of, separate_weights
from data.errors import DataError
from data.simulate.scans import response
from tests.data.brain_files import events_table, series, write_events, write_image, write_mask

TR = 2.0


def run_of(series: np.ndarray, onset: list[float], duration: float = 10.0, labels: str = "ab", name: str = "1") -> Run:
    shown = [labels[k % len(labels)] for k in range(len(onset))]
    events = pd.DataFrame({"onset": onset, "duration": duration, "label": shown, "stimulus": shown})
    return Run("01", name, Path("run.nii"), series.astype(np.float32), TR, 0.0, events)


def noise(frames: int = 60, voxels: int = 5, seed: int = 0) -> np.ndarray:
    return 1000 + 5 * np.random.default_rng(seed).normal(size=(frames, voxels))


def test_trend_and_scale_vanish():
    x = noise()
    trend = np.linspace(0, 300, len(x))[:, None]
    plain, moved = (Cleaning().apply(v.astype(np.float32), TR).series for v in (x, 7 * (x + trend)))
    assert np.allclose(plain, moved, atol=1e-2)
    assert np.allclose(plain.mean(axis=0), 0, atol=1e-4)
    assert np.allclose(plain.std(axis=0, ddof=1), 1, atol=1e-4)


def test_cleaning_is_nilearn_s():
    from nilearn.signal import clean

    x = noise().astype(np.float32)
    ours = Cleaning(high_pass=0.02).apply(x, TR).series
    assert np.allclose(ours, clean(x, t_r=TR, high_pass=0.02, filter="cosine"), atol=1e-4)


def test_confounds_leave_no_trace():
    motion = np.random.default_rng(1).normal(size=(60, 2))
    x = (noise() + 40 * motion @ np.ones((2, 5))).astype(np.float32)
    cleaned = Cleaning().apply(x, TR, motion).series
    assert np.abs(np.corrcoef(cleaned.T, motion.T)[:5, 5:]).max() < 0.02


def test_units_of_the_scanner_can_be_kept():
    x = noise().astype(np.float32)
    cleaned = Cleaning(standardise="none").apply(x, TR)
    assert np.allclose(cleaned.series.std(axis=0, ddof=1), cleaned.scale, rtol=1e-4)
    assert cleaned.scale.min() > 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"high_pass": 128.0}, "cleaning.high_pass: expected Hz between 0 and 1"),
        ({"high_pass": 0.01, "confounds": ["compcor"]}, "two high-pass filters"),
        ({"smooth": 0.0}, "cleaning.smooth: expected mm above 0 and below 50"),
        ({"dummies": -1}, "cleaning.dummies: expected a number of volumes, 0 or more"),
    ],
)
def test_senseless_cleaning_is_refused(options: dict, said: str):
    with pytest.raises(ValueError, match=said):
        Cleaning(**options)


def test_strategies_name_fmriprep_s_columns(tmp_path: Path):
    draw = np.random.default_rng(0)
    names = ["csf", "white_matter", "cosine00", "cosine01", "trans_x", *(f"a_comp_cor_{k:02d}" for k in range(8))]
    table = pd.DataFrame(draw.normal(size=(40, len(names))), columns=names)
    values, chosen = confounds_of(table, ["compcor", "wm_csf", "cosine00"], 40, Path("c.tsv"))
    assert chosen == [*(f"a_comp_cor_{k:02d}" for k in range(6)), "cosine00", "cosine01", "white_matter", "csf"]
    assert np.array_equal(values, table[chosen])
    assert confounds_of(table, ["outliers"], 40, Path("c.tsv"))[1] == []
    np.savetxt(tmp_path / "moest.txt", draw.normal(size=(40, 6)))
    assert list(read_confounds(tmp_path / "moest.txt"))[:3] == ["rot_x", "rot_y", "rot_z"]
    np.savetxt(tmp_path / "moest.txt", draw.normal(size=(40, 5)))
    with pytest.raises(DataError, match="5 columns without a header; expected six motion parameters"):
        read_confounds(tmp_path / "moest.txt")


def test_smoothing_is_that_of_nilearn_s_masker_and_nan_stays_nan(tmp_path: Path):
    from nilearn.maskers import NiftiMasker

    path, mask = write_image(tmp_path / "r.nii", series(1)), write_mask(tmp_path / "m.nii")
    inside = read_mask(mask).mask
    theirs = NiftiMasker(mask_img=str(mask), smoothing_fwhm=6.0, standardize=None).fit_transform(str(path))
    assert np.allclose(masked(open_bold(path), path, inside, 6.0), theirs, rtol=1e-5)
    broken = series(1)
    broken[0, 0, 0, 3] = np.nan
    found = masked(open_bold(write_image(path, broken)), path, inside, 6.0)
    assert np.argwhere(np.isnan(found)).tolist() == [[3, 0]]


def test_dummies_are_dropped_and_the_clock_goes_on(tmp_path: Path):
    """Samples are those of a scan whose first volumes never existed."""

    def load(frames: np.ndarray, shift: float, dummies: int) -> np.ndarray:
        bold = str(write_image(tmp_path / "r.nii", frames))
        table = events_table().assign(onset=lambda t: t["onset"] - shift)
        events = str(write_events(tmp_path / "e.tsv", table))
        mask = str(write_mask(tmp_path / "m.nii"))
        loaded = NiftiBrains([bold], 4.0, events=[events], mask=mask, cleaning=Cleaning(dummies=dummies)).load()
        return loaded.subjects["01"].x

    assert np.allclose(load(series(1), 0.0, 2), load(series(1)[..., 2:], 2 * TR, 0), atol=1e-5)
    with pytest.raises(DataError, match=r"r\.nii: 40 volumes; cleaning\.dummies=39 leaves no series"):
        load(series(1), 0.0, 39)


def test_a_run_is_cleaned_by_itself(tmp_path: Path):
    """Whatever happens to the run that is scored, samples of the other runs stay bit for bit the same."""

    def load(last: np.ndarray) -> Brains:
        images = [series(1), series(2), last]
        bold = [str(write_image(tmp_path / f"r{k}.nii", x)) for k, x in enumerate(images)]
        events = [str(write_events(tmp_path / f"r{k}.tsv")) for k in range(3)]
        mask = str(write_mask(tmp_path / "m.nii"))
        return NiftiBrains(bold, 4.0, events=events, mask=mask).load()

    one, other = load(series(3)), load(50 * series(4) ** 1.1)
    for split in LeaveRunsOut().splits(one)[2:]:
        assert np.array_equal(one.rows(split.train)["01"][0], other.rows(split.train)["01"][0])
        assert not np.array_equal(one.rows(split.test)["01"][0], other.rows(split.test)["01"][0])


def test_block_means_are_the_volumes_between_onset_and_end():
    run = run_of(noise(), [10.0, 50.0, 90.0])
    got = samples_of(run, "blocks", 4.0, Cleaning(), "glover", Counter())
    clean = Cleaning().apply(run.series, TR).series
    for row, onset in enumerate((10, 50, 90)):
        first = (onset + 4) // 2
        assert np.allclose(got.x[row], clean[first : first + 5].mean(axis=0), atol=1e-5)
    assert list(got.events["onset"]) == [10.0, 50.0, 90.0]


def test_a_lag_is_a_shift_of_the_onsets():
    run = run_of(noise(), [10.0, 50.0])
    moved = replace(run, events=run.events.assign(onset=run.events["onset"] + 6.0))
    for unit in ("volumes", "blocks", "trials"):
        lagged = samples_of(run, unit, 6.0, Cleaning(), "glover", Counter())
        shifted = samples_of(moved, unit, 0.0, Cleaning(), "glover", Counter())
        assert np.allclose(lagged.x, shifted.x, atol=1e-6)


def test_a_block_at_the_end_is_kept_and_counted():
    skipped: Counter[str] = Counter()
    got = samples_of(run_of(noise(), [10.0, 112.0]), "blocks", 2.0, Cleaning(), "glover", skipped)
    assert len(got.events) == 2
    assert skipped["events cut short by the end of the scan, kept"] == 1


def test_an_event_before_the_scan_is_counted():
    skipped: Counter[str] = Counter()
    got = samples_of(run_of(noise(), [2.0, 40.0]), "blocks", -14.0, Cleaning(), "glover", skipped)
    assert len(got.events) == 1
    assert +skipped == {"events whose response ends before the first volume, skipped": 1}


def test_overlapping_events_have_no_volumes_of_their_own():
    with pytest.raises(DataError, match=r"run\.nii: a volume lies in several events at lag 0 s.*unit: trials"):
        samples_of(run_of(noise(), [10.0, 15.0]), "volumes", 0.0, Cleaning(), "glover", Counter())


def test_separate_betas_are_nilearn_s_one_model_at_a_time():
    from nilearn.glm.first_level import make_first_level_design_matrix, run_glm

    run = run_of(noise(frames=80), [8.0, 40.0, 74.0, 100.0, 126.0], duration=4.0)
    ours = samples_of(run, "trials", 0.0, Cleaning(standardise="none"), "glover", Counter())
    for k in range(5):
        events = run.events.rename(columns={"label": "trial_type"})[["onset", "duration", "trial_type"]].copy()
        events.loc[k, "trial_type"] = "this"
        matrix = make_first_level_design_matrix(run.times, events, drift_model="polynomial", drift_order=1)
        labels, results = run_glm(run.series.astype(float), matrix.to_numpy(), noise_model="ols")
        expected = results[labels[0]].theta[list(matrix).index("this")]
        assert np.allclose(ours.x[k], expected, rtol=1e-3, atol=1e-3)


def test_separate_betas_recover_what_overlapping_trials_did():
    draw = np.random.default_rng(0)
    onset = np.sort(draw.choice(np.arange(5, 180, 4), 24, replace=False)).astype(float)
    run = run_of(np.zeros((100, 3)), list(onset), duration=1.0)
    alone, _ = design(run, run.events, Cleaning(), "glover")
    truth = draw.normal(size=(24, 3)) + np.where(run.events["label"] == "a", 2.0, -1.0)[:, None]
    run = replace(run, series=(1000 + alone @ truth + 0.01 * draw.normal(size=(100, 3))).astype(np.float32))
    got = samples_of(run, "trials", 0.0, Cleaning(standardise="none"), "glover", Counter())
    assert np.corrcoef(got.x.ravel(), truth.ravel())[0, 1] > 0.8


def test_a_lone_trial_of_its_class_needs_no_rest_of_the_class():
    alone = np.eye(6)[:, :3]
    weights = separate_weights(alone, ["a", "b", "b"], np.ones((6, 1)))
    assert weights.shape == (3, 6)
    assert np.allclose(np.diag(weights @ alone), 1)


def test_a_trial_whose_response_the_scan_misses_is_counted():
    skipped: Counter[str] = Counter()
    got = samples_of(run_of(noise(), [10.0, 50.0, 119.0], 1.0), "trials", 0.0, Cleaning(), "glover", skipped)
    assert len(got.events) == 2
    assert skipped["events whose response lies after the last volume, skipped"] == 1


def evoking(delay: float, runs: int = 4) -> list[Run]:
    """Runs in which half of the voxels answer to every event, and half of those downwards."""
    made = []
    for k in range(runs):
        draw = np.random.default_rng(k)
        onset = [20.0 + 40.0 * j for j in range(5)]
        steps = np.arange(0, 240, 0.1)
        box = sum(((steps >= t + delay) & (steps < t + delay + 10)).astype(float) for t in onset)
        drive = np.convolve(box, response(np.arange(0, 25, 0.1)))[: len(steps)][:: round(TR / 0.1)]
        sizes = np.r_[np.full(8, 4.0), np.full(8, -4.0), np.zeros(16)]
        made.append(run_of(1000 + np.outer(drive, sizes) + 5 * draw.normal(size=(120, 32)), onset, 10.0, name=str(k)))
    return made


@pytest.mark.parametrize("delay", [-6.0, 0.0, 4.0])
def test_the_evoked_response_finds_a_shift_of_the_labels(delay: float):
    got = evoked_response(evoking(delay), Cleaning(), 4.0, "blocks")
    assert got.rise - got.expected_rise == pytest.approx(delay, abs=1.5)
    assert got.mean.max() >= 1
    assert (got.error[: len(got.error) // 2] < 0.3).all()
    assert "subject 01: the response to any event" in got.sentence
    trials = evoked_response(evoking(delay), Cleaning(), 0.0, "trials")
    assert trials.sentence.endswith(f"a lag of {trials.rise - trials.expected_rise:.1f} s would fit")


def test_one_run_shows_its_mean_and_no_error():
    (run,) = evoking(0.0, 1)
    positive = replace(run, series=run.series[:, :8])
    got = evoked_response([positive], Cleaning(), 4.0, "blocks")
    assert np.isnan(got.error).all()
    assert got.rise == pytest.approx(got.expected_rise, abs=1.5)
    with pytest.raises(DataError, match="runs of different TR"):
        evoked_response([run, replace(run, tr=1.0)], Cleaning(), 4.0, "blocks")


def test_longer_events_take_longer_to_reach_half_their_height():
    assert 1.5 < canonical_rise(0.0) < canonical_rise(4.0) < canonical_rise(10.0) < 7


def repeated() -> Brains:
    """Three stimuli, each shown in each of four runs, the value of a sample its own."""
    run = [f"r{k}" for k in range(4) for _ in "abc"]
    table = sample_table("01", run, np.arange(12.0), list("xxy") * 4, list("abc") * 4)
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    return Brains("b", {"01": Brain("01", x, table)}, [], ["x", "y"])


@pytest.mark.parametrize("splitting", [LeaveRunsOut(2), CutRuns(2)])
def test_repeats_are_averaged_within_a_side_and_never_across(splitting):
    brains = repeated()
    for split in splitting.splits(brains):
        averaged, sides = average_repeats(brains, split)
        assert sides.cuts_runs == split.cuts_runs
        for before, after in ((split.train, sides.train), (split.test, sides.test)):
            x, table = brains.rows(before)["01"]
            mean, whole = averaged.rows(after)["01"]
            assert whole["repeats"].sum() == len(before)
            for row, (_, sample) in enumerate(whole.iterrows()):
                same = (table["stimulus"] == sample["stimulus"]).to_numpy()
                assert np.allclose(mean[row], x[same].mean(axis=0))
                assert sample["label"] == table["label"][same].iloc[0]
        other = replace(brains.subjects["01"], x=brains.subjects["01"].x.copy())
        other.x[brains.table.index.isin(split.test)] += 100
        spoiled, _ = average_repeats(replace(brains, subjects={"01": other}), split)
        assert np.array_equal(spoiled.rows(sides.train)["01"][0], averaged.rows(sides.train)["01"][0])


def test_samples_that_are_not_repeated_keep_their_names():
    brains = repeated()
    ids = list(brains.table.index)
    averaged, sides = average_repeats(brains, Split("f", ids[:3], ids[3:]))
    assert sides.train == ids[:3]
    assert [i.split("/")[1] for i in sides.test] == ["r1+r2+r3"] * 3
    assert averaged.table.loc[sides.train, "onset"].tolist() == [0.0, 1.0, 2.0]
    assert averaged.table.loc[sides.test, "onset"].isna().all()
