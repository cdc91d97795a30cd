"""What a finished run hands on: its decoded samples, weight maps and metrics as BIDS derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.experiment.inventory import fault
from tasks.experiment.state import CONTROLS, finished_units
from tasks.fmri.control_units import GEOMETRY
from tasks.fmri.derivatives import (
    CORRELATIONS,
    decoded_table,
    describe,
    write_comparison,
    write_metrics,
    write_subject,
    write_weights,
)
from tasks.fmri.evaluation import ALL
from tasks.fmri.experiment import FmriExperiment
from tasks.fmri.feature_units import BRAIN_SCORE, ENCODING, MODEL_RSA
from tasks.fmri.results import Results
from tasks.fmri.unit import read_maps

TWO_ACCURACIES = (
    "Accuracy is that of one decoder, the mean over Seeds, where a tie counts as the chance to break it right; "
    "AccuracyOfMeanScores is that of the column correct, as the scores of this table are means over Seeds."
)


def write_outputs(results: Results, experiment: FmriExperiment, out: Path) -> list[Path]:
    """Write a run as a derivatives dataset.

    The model under test gives decoded samples; it and the control arm give weight maps, where they have any.

    Args:
        results: of an evaluated run
        experiment: of the same run, for the data's tables and voxel spaces
        out: the dataset's folder

    Returns:
        the files, the description first
    """
    brains = experiment.brains.load()
    written = [describe(out, f"Decoding of {brains.name}")]
    for name, table in (("metrics", results.summary), ("classes", results.classes)):
        if table is not None:
            written += write_metrics(out, name, table, {"Run": results.own, **setting(results)})
    written += _decoded(results, out)
    for name in (GEOMETRY, ENCODING, MODEL_RSA, BRAIN_SCORE):
        if (table := results.controls.get(name)) is not None:
            written += write_comparison(out, name, table, setting(results))
    if results.reconstruction is not None:
        written += write_comparison(out, "reconstruction", results.reconstruction, setting(results))
    encoding = results.path / CONTROLS / ENCODING
    predicted = read_maps(encoding / "maps.npz") if fault(encoding) is None else {}
    written += write_weights(out, brains, ENCODING, predicted, setting(results), CORRELATIONS)
    for arm in dict.fromkeys([results.own, experiment.control_arm]):
        written += write_weights(out, brains, arm, mean_maps(results.path, arm), setting(results))
    return written


def mean_maps(run: Path, arm: str) -> dict[str, dict[str, np.ndarray]]:
    """Weight maps of an arm, the mean over its finished units; empty when it has none."""
    of_units = [read_maps(unit / "maps.npz") for unit in finished_units(run, arm)]
    names = dict.fromkeys((subject, name) for maps in of_units for subject, of in maps.items() for name in of)
    means: dict[str, dict[str, np.ndarray]] = {}
    for subject, name in names:
        stack = [maps[subject][name] for maps in of_units if name in maps.get(subject, {})]
        means.setdefault(subject, {})[name] = np.mean(stack, axis=0)
    return means


def _decoded(results: Results, out: Path) -> list[Path]:
    """The held-out samples of the model under test, the mean score over seeds where there are several.

    What is decoded from mean scores is an average of decoders, which can be right more often than one of them; so the
    sidecar names both, the accuracy of a decoder as the report has it and that of the table.
    """
    own = results.predictions[results.predictions["arm"] == results.own]
    if own.empty:
        return []
    scores = own.groupby("sample", sort=False)[results.candidates].mean()
    who = own.drop_duplicates("sample").set_index("sample")
    written: list[Path] = []
    seeds = sorted(int(seed) for seed in own["seed"].unique())
    for subject, of in who.groupby("subject", sort=False):
        rows = decoded_table(of, scores.loc[of.index])
        facts = {
            **setting(results), "Seeds": seeds, **_of_subject(results, str(subject)),
            "AccuracyOfMeanScores": float(rows["correct"].mean()), "AccuracyNote": TWO_ACCURACIES,
        }  # fmt: skip
        written += write_subject(out, str(subject), results.own, rows, facts)
    return written


def setting(results: Results) -> dict[str, Any]:
    """What every sidecar says: split, whether it cuts runs, lag."""
    split = results.config["split"]
    lag = (results.config["brains"].get("init_args") or {}).get("lag")
    return {
        "Split": split["class_path"].rsplit(".", 1)[-1],
        "SplitOptions": split.get("init_args") or {},
        "CutsRuns": results.leaks,
        **({} if lag is None else {"Lag": lag}),
    }


def _of_subject(results: Results, subject: str) -> dict[str, Any]:
    """Accuracy of the model under test in one subject, with its limits."""
    if results.summary is None:
        return {}
    rows = results.summary[(results.summary["arm"] == results.own) & (results.summary["metric"] == "accuracy")]
    found = rows[rows["subject"] == subject]
    found = rows[rows["subject"] == ALL] if found.empty else found
    names: Sequence[tuple[str, str]] = (
        ("Accuracy", "value"), ("AccuracyLow", "low"), ("AccuracyHigh", "high"), ("Chance", "chance"),
        ("PermutedP95", "null_p95"),
    )  # fmt: skip
    return {said: float(found.iloc[0][column]) for said, column in names} if len(found) else {}
