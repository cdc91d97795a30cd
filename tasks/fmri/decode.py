"""`fmri decode`: new data of a run's subjects, scored by the model under test after a fit on all samples of the run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.brain.brain import Brain, Brains, VoxelSpace, sample_table
from data.brain.images import check_same_space, header_tr, masked, open_bold, repetition_time
from data.brain.recordings import RecordedBrains
from data.brain.units import repeats_averaged
from data.errors import DataError
from tasks.experiment.console import say
from tasks.experiment.folder import RunError
from tasks.experiment.report.numbers import count
from tasks.experiment.state import UNIT, arm_units
from tasks.fmri.decoder import Decoder, Scores
from tasks.fmri.derivatives import decoded_table, describe, write_subject
from tasks.fmri.experiment import FmriExperiment, experiment_of_run


def decode(
    run: Path,
    overrides: Sequence[str],
    output: Path,
    bold: Sequence[Path] = (),
    subject: str | None = None,
    seed: int | None = None,
) -> list[Path]:
    """Score new data and write them as BIDS derivatives.

    Args:
        run: the run folder
        overrides: KEY=VALUE of the run's `brains`, for example `folder=new_study`; labelled or not, its samples are
            those of its events
        output: the derivatives dataset
        bold: instead, 4-D images without events; every volume is decoded
        subject: whose images those are; may be left out when the run has one subject
        seed: of the fit; None = the first one of the run

    Returns:
        the files written

    Raises:
        RunError: no run at this path, or it is not said where the new data are
        DataError: the data cannot be read, or are of a subject or voxels that the run does not know
    """
    if bool(overrides) == bool(bold):
        raise RunError(f"{run}: say where the new data are: KEY=VALUE of its brains, or images with --bold")
    experiment = experiment_of_run(run)
    known = experiment.brains.load()
    averages = experiment.repeats == "average"
    if bold:
        new, truth_known = _every_volume(experiment, known, bold, subject), False
        _warn_of_training(new, known)
    else:
        placed = _placed(experiment_of_run(run, [f"brains.{text}" for text in overrides]).brains.load(), known)
        _warn_of_training(placed, known)
        new, truth_known = _in_gallery(repeats_averaged(placed) if averages else placed, known)
    trained = repeats_averaged(known) if averages else known
    seed = _first_seed(run, experiment.name) if seed is None else seed
    say(f"{experiment.name}: fitted on {_counted(trained, averages)}, seed {seed}; decodes {_counted(new, averages)}")
    decoder = fitted_on_everything(experiment, trained, run, seed)
    elsewhere = _in_new_runs(new)
    found = decoder.scores(elsewhere, list(elsewhere.table.index))
    scores = Scores(list(new.table.index), found.matrix, found.candidates)
    written = [describe(output, f"Decoding of {new.name} by {experiment.name}")]
    for label, brain in new.subjects.items():
        own = scores.of(list(brain.table.index))
        who = brain.table.assign(truth=brain.table[new.truth])
        rows = decoded_table(who, pd.DataFrame(own.matrix, index=own.ids, columns=own.candidates), truth_known)
        facts = {
            "Run": str(run), "Candidates": known.candidates, "TruthKnown": truth_known, "Seed": seed,
            "Repeats": experiment.repeats,
        }  # fmt: skip
        written += write_subject(output, label, experiment.name, rows, facts)
        if truth_known:
            say(f"subject {label}: {_right(own, who):.3f} of {len(rows)} samples right, chance {known.chance:.3f}")
    return written


def fitted_on_everything(experiment: FmriExperiment, brains: Brains, run: Path, seed: int) -> Decoder:
    """The model under test, fitted on every sample of the run; a network goes on from what an earlier call left."""
    decoder = copy.deepcopy(experiment.model)
    decoder.fit(brains, list(brains.table.index), seed=seed, folder=run / "decoder" / f"seed{seed}")
    return decoder


def _in_new_runs(brains: Brains) -> Brains:
    """The same samples in runs of other names: run-1 of a new session is not run-1 of the training data."""
    subjects = {}
    for label, brain in brains.subjects.items():
        table = brain.table.assign(run="decoded " + brain.table["run"])
        table.index = pd.Index([f"{label}/decoded {name.partition('/')[2]}" for name in table.index], name="sample")
        subjects[label] = replace(brain, table=table)
    return replace(brains, subjects=subjects)


def _first_seed(run: Path, arm: str) -> int:
    """The lowest seed the run gave its model; 1 where no unit was begun."""
    named = [UNIT.fullmatch(unit.name) for unit in arm_units(run) if unit.parent.name == arm]
    return min((int(of["seed"]) for of in named if of), default=1)


def _counted(brains: Brains, averages: bool) -> str:
    """How many samples, and what they are means of."""
    found = count(len(brains.table), "sample")
    repeats = brains.table.get("repeats")
    if repeats is not None:
        return f"{found} ({int(repeats.sum())} with repeats averaged, as the run asks)"
    return f"{found} (single volumes, though the run averages repeats)" if averages else found


def _warn_of_training(new: Brains, known: Brains) -> None:
    """Say how many of the new samples are those that the decoder is fitted on."""
    shared, total = 0, len(new.table)
    for label, brain in new.subjects.items():
        if label in known.subjects and brain.x.shape[1] == known.subjects[label].x.shape[1]:
            seen = {row.tobytes() for row in known.subjects[label].x}
            shared += sum(row.tobytes() in seen for row in brain.x)
    if shared:
        say(f"{shared} of {total} samples trained this decoder; a score on them means nothing")


def _right(scores: Scores, who: pd.DataFrame) -> float:
    guess = np.array(scores.candidates, dtype=object)[scores.matrix.argmax(axis=1)]
    return float((guess == who.loc[scores.ids, "truth"].to_numpy()).mean())


def _placed(new: Brains, known: Brains) -> Brains:
    """New brains on the voxels of the training data."""
    subjects = {
        label: replace(brain, x=_on_voxels(brain, known), space=_space(brain, known))
        for label, brain in new.subjects.items()
    }
    return replace(new, subjects=subjects)


def _in_gallery(new: Brains, known: Brains) -> tuple[Brains, bool]:
    """New brains with the gallery of the training data; whether their truth is in that gallery."""
    subjects, strange = new.subjects, sorted(set(new.candidates) - set(known.candidates))
    if strange:
        say(f"'{strange[0]}' is not among the candidates of this run, so nothing of the new data can be called right")
        subjects = {
            label: replace(brain, table=brain.table.assign(**dict.fromkeys(("label", "stimulus"), known.candidates[0])))
            for label, brain in subjects.items()
        }
    return replace(known, name=new.name, subjects=subjects, account=new.account), not strange


def _space(brain: Brain, known: Brains) -> VoxelSpace | None:
    return known.subjects[brain.subject].space if brain.subject in known.subjects else brain.space


def _on_voxels(brain: Brain, known: Brains) -> np.ndarray:
    """The voxels the subject was trained with; one that is unusable in the new data counts as 0, its mean.

    A subject that was not trained on keeps its own voxels: the decoder says what it needs.

    Raises:
        DataError: the grids differ, or voxels without a place differ in number
    """
    if brain.subject not in known.subjects:
        return brain.x
    trained = known.subjects[brain.subject]
    if brain.space is None or trained.space is None:
        if brain.x.shape[1] != trained.x.shape[1]:
            raise DataError(
                f"subject {brain.subject}: {brain.x.shape[1]} voxels, the run was trained on {trained.x.shape[1]}; "
                "give the same voxels in the same order"
            )
        return brain.x
    if brain.space.mask.shape != trained.space.mask.shape or not np.allclose(
        brain.space.affine, trained.space.affine, atol=1e-2
    ):
        raise DataError(
            f"subject {brain.subject}: the new data lie on another grid than the run's; resample them to it first"
        )
    placed = np.zeros((len(brain.x), *trained.space.mask.shape), dtype=np.float32)
    placed[:, brain.space.mask] = brain.x
    lost = int((trained.space.mask & ~brain.space.mask).sum())
    if lost:
        say(f"subject {brain.subject}: {lost} of {trained.x.shape[1]} voxels cannot be used in the new data, set to 0")
    return placed[:, trained.space.mask]


def _every_volume(experiment: FmriExperiment, known: Brains, files: Sequence[Path], subject: str | None) -> Brains:
    """Each volume of each image as a sample, cleaned like the run's data."""
    source = experiment.brains
    if not isinstance(source, RecordedBrains):
        raise RunError(f"--bold: the run's data are {type(source).__name__}, not scans; give KEY=VALUE of its brains")
    label = subject or (next(iter(known.subjects)) if len(known.subjects) == 1 else None)
    if label not in known.subjects:
        found = f"no subject {label}" if label else "several subjects"
        raise RunError(f"--subject: this run has {found}; name one of {', '.join(known.subjects)}")
    trained = known.subjects[label]
    assert trained.space is not None
    if source.cleaning.confounds:
        raise RunError("--bold: this run removes confounds, which bare images lack; give KEY=VALUE of its brains")
    series, runs, onsets = [], [], []
    for k, path in enumerate(files):
        image = open_bold(path)
        check_same_space(image, path, trained.space, "of the run")
        tr = repetition_time(path, None if source.tr else header_tr(image, path), None, source.tr)
        whole = masked(image, path, trained.space.mask, source.cleaning.smooth)
        first = source.cleaning.dummies
        if first > len(whole) - 2:
            raise DataError(
                f"{path}: {len(whole)} volumes, of which the run's cleaning drops {first}; give a longer run"
            )
        cleaned = source.cleaning.apply(whole[first:], tr)
        series.append(cleaned.series)
        runs += [f"new-{k + 1}"] * len(cleaned.series)
        onsets += [tr * (first + i) for i in range(len(cleaned.series))]
    table = sample_table(label, runs, onsets, [known.candidates[0]] * len(runs))
    brain = Brain(label, np.concatenate(series).astype(np.float32), table, trained.space)
    return replace(known, name="new images", subjects={label: brain}, account=[])
