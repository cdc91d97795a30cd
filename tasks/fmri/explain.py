"""`fmri explain RUN SUBJECT`: which voxels a decoder uses in a subject, where, and what it gets right there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tasks.experiment.compare import Interval
from tasks.experiment.folder import RunError
from tasks.experiment.report import Figure, Measured, MetricRow, MetricTable, Part, Prose, Report, Section, Table
from tasks.experiment.report.numbers import count, decimal
from tasks.experiment.signatures import did_you_mean
from tasks.fmri import brain_maps, figures
from tasks.fmri.brain_maps import millimetres, strength
from tasks.fmri.derivatives import Weights, write_weights
from tasks.fmri.evaluation import judged_samples
from tasks.fmri.experiment import experiment_of_run
from tasks.fmri.metrics import by_group, confusion
from tasks.fmri.outputs import mean_maps, setting
from tasks.fmri.results import Results, read

TOP = 10
CAUTION = (
    "A weight says what the decoder reads, not where a class is represented: voxels that only carry noise get weights "
    "because they cancel noise elsewhere (Haufe et al. 2014, NeuroImage 87)."
)


def explain(run: Path, subject: str | None = None, arm: str | None = None) -> list[Path]:
    """Write `RUN/explain/ARM/SUBJECT/`: explain.html, brain.html to walk through, and the weights as NIfTI.

    Args:
        run: the run folder
        subject: label; None = every subject that was scored
        arm: which decoder; None = the model under test

    Returns:
        the pages

    Raises:
        RunError: no run at this path, no finished unit of the arm, no such subject or arm
    """
    results = read(run)
    arm = results.own if arm is None else arm
    if arm not in results.arms:
        near = did_you_mean(arm, results.arms)
        raise RunError(f"{run}: no finished unit of '{arm}'{near}; finished are {', '.join(results.arms) or 'none'}")
    scored = list(dict.fromkeys(results.predictions.loc[results.predictions["arm"] == arm, "subject"]))
    if subject is not None and subject.removeprefix("sub-") not in scored:
        raise RunError(f"{run}: '{arm}' scored no subject {subject}; it scored {', '.join(scored)}")
    chosen = scored if subject is None else [subject.removeprefix("sub-")]
    brains, maps = experiment_of_run(run).brains.load(), mean_maps(run, arm)
    pages = []
    for label in chosen:
        folder = run / "explain" / arm / label
        space = brains.subjects[label].space if label in brains.subjects else None
        weights = None if space is None or label not in maps else Weights(label, arm, space, maps[label])
        if weights is not None:
            write_weights(folder, brains, arm, {label: maps[label]}, setting(results))
            brain_maps.interactive(folder / "brain.html", weights)
        pages.append(_page(results, label, arm, maps.get(label, {}), weights).write(folder / "explain.html"))
    return pages


def _page(results: Results, subject: str, arm: str, maps: Mapping[str, np.ndarray], weights: Weights | None) -> Report:
    judged = judged_samples(results, arm)
    own = judged[judged["subject"] == subject]
    right, n = float(own["accuracy"].mean()), count(len(own), "sample")
    chance = 1 / len(results.candidates)
    parts: list[Part] = []
    if len(results.candidates) <= figures.MOST_CLASSES:
        counts = confusion(own, results.candidates).to_numpy(dtype=int)
        parts.append(figures.confusion(counts, results.candidates, arm, n))
    runs = by_group(own, "run")
    rows = [MetricRow(str(run), {"Accuracy": Measured(float(row["accuracy"]))}, remark=count(int(row["n"]), "sample"))
            for run, row in runs.iterrows()]  # fmt: skip
    sections = [
        Section("What it gets right", parts),
        Section(
            "Runs", [_runs(own, n, chance), MetricTable({"Accuracy": ""}, rows, f"Subject {subject}, run by run.")]
        ),
        Section("Voxels", list(_voxels(maps, weights))),
    ]
    lead = f"In subject {subject}, {arm} is right in {decimal(right)} of {n}; chance is {decimal(chance)}." + (
        "" if maps else f" {arm} has no weight per voxel to show."
    )
    return Report(
        f"{arm} in subject {subject}", lead, [section for section in sections if section.parts],
        notice="Some of these runs were trained on, as the split of this run cuts runs." if results.leaks else "",
        context=f"fmri · {results.path.resolve().name}",
    )  # fmt: skip


def _runs(own, n: str, chance: float) -> Figure:
    runs = list(dict.fromkeys(own["run"].astype(str)))
    nothing = float("nan")
    values = [
        Interval(float(own.loc[own["run"].astype(str) == run, "accuracy"].mean()), nothing, nothing) for run in runs
    ]
    return figures.by_group(
        "runs", runs, {"accuracy": values}, title="Accuracy per run", axis="Accuracy",
        caption="A run that stands out may have a fault of its own: motion, sleep, a wrong events file.", n=n,
        lines={"chance": chance},
    )  # fmt: skip


def _voxels(maps: Mapping[str, np.ndarray], weights: Weights | None) -> Iterator[Part]:
    if not maps:
        return
    yield Prose([CAUTION])
    if weights is not None:
        yield brain_maps.slices(weights)
        yield brain_maps.glass(weights)
    used = strength(maps)
    rows = []
    for column in np.argsort(-used)[:TOP]:
        loudest = max(maps, key=lambda name: abs(maps[name][column]))
        place = "unknown" if weights is None else ", ".join(f"{x:.0f}" for x in millimetres(weights.space, int(column)))
        rows.append([int(column), place, f"{used[column]:.3g}", loudest, f"{maps[loudest][column]:+.3g}"])
    yield Table(
        ["column", "x, y, z in mm", "strength", "largest for", "weight"], rows,
        f"The {len(rows)} voxels used most: root mean square of the weights over {count(len(maps), 'map')}.",
    )  # fmt: skip
    if weights is not None:
        yield Prose(["brain.html in the folder of this page shows the volume; sub-*/ holds the maps as NIfTI."])
