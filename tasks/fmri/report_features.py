"""The part of an fMRI report that sets models of what was shown beside the brains, and pictures made from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from tasks.experiment.report import Figure, Part, Prose, Table
from tasks.experiment.report.numbers import sentence
from tasks.fmri import brain_maps
from tasks.fmri.derivatives import CORRELATIONS, read_weights
from tasks.fmri.feature_units import BRAIN_SCORE, ENCODING, MODEL_RSA
from tasks.fmri.figures import picture_rows
from tasks.fmri.reconstructed import as_pictures, read_reconstructed
from tasks.fmri.results import Results

MOST_BRAINS = 3
"""Subjects whose maps are drawn on the page; the derivatives hold all."""

MOST_PICTURES = 8
"""Pictures drawn of a reconstruction."""


def feature_parts(results: Results) -> Iterator[Part]:
    """Encoding, geometry and Brain-Score, as far as they are finished."""
    encoding, geometry, score = (results.controls.get(name) for name in (ENCODING, MODEL_RSA, BRAIN_SCORE))
    if encoding is not None:
        yield from _table(
            encoding, "subject",
            {
                "features": "features", "mean": "mean r", "shuffled": "mean r, shuffled", "best": "best r",
                "p95": "threshold", "significant": "voxels above", "voxels": "of", "n": "samples",
            },
            "Encoding: how well features of what was shown predict each voxel (ridge; penalties chosen on whole "
            "training runs). Correlation with the measured response of held-out samples, mean over folds. The "
            "threshold is what the best of all voxels reaches in 5 % of label shuffles within runs. Shuffled: the same "
            "features given to other candidates. Where held-out samples show what also trained, these predict as well, "
            "and only what lies above them speaks for the features.",
        )  # fmt: skip
        yield from encoding_figures(results)
    if geometry is not None:
        yield from _table(
            geometry, "between",
            {
                "model": "model", "value": "correlation", "interval": "95 % interval", "p95": "permuted, p95", "p": "p",
                "ceiling": "noise ceiling", "rdms": "RDMs", "distance": "distance",
            },
            "Geometry: Spearman correlation of each model's dissimilarities with those of the brains, mean over RDMs; "
            "intervals resample them, permutations shuffle the model's conditions. Nothing can exceed the ceiling.",
        )  # fmt: skip
    if score is not None:
        yield from _table(
            score, "subject",
            {
                "features": "features", "score": "Brain-Score", "error": "standard error", "r": "r",
                "ceiling": "ceiling", "shuffled": "r, stimuli shuffled", "stimuli": "stimuli", "repeats": "repeats",
                "voxels": "voxels",
            },
            "Brain-Score: partial least squares with 25 components from features to voxels, 10 random splits by "
            "stimulus, median correlation over voxels squared and divided by the reliability of the responses.",
        )  # fmt: skip


def reconstruction_parts(results: Results) -> Iterator[Part]:
    """Measures of what was reconstructed, and the first pictures beside their originals."""
    if results.reconstruction is None:
        return
    yield from _table(
        results.reconstruction, "arm",
        {
            "kind": "what", "measure": "measure", "value": "value", "interval": "95 % interval", "chance": "chance",
            "mean_picture": "mean picture", "n": "samples",
        },
        "Reconstruction of held-out samples: correlation with the own original (of pictures: of their pixels, "
        "PixCorr), identification among all originals by that correlation, structural similarity, and identification "
        "by a network's features. Chance is a guess, or what the originals of other candidates reach in the place of "
        "the own.",
    )  # fmt: skip
    yield from picture_figures(results)


def picture_figures(results: Results) -> Iterator[Figure]:
    """Pictures that the model under test made, under what was shown."""
    for kept in read_reconstructed(results.path, results.own)[:1]:
        drawn = {kind: pictures for kind, of in kept.kinds.items() if (pictures := as_pictures(of)) is not None}
        truth = results.predictions.drop_duplicates("sample").set_index("sample")["truth"]
        for made, shown in drawn.values():
            rows = list(truth.loc[kept.ids].reset_index(drop=True).drop_duplicates().index)[:MOST_PICTURES]
            names = [str(truth.loc[kept.ids[row]]) for row in rows]
            originals = shown[[results.candidates.index(name) for name in names]]
            yield picture_rows(originals, made[rows], names)


def encoding_figures(results: Results) -> Iterator[Figure]:
    """Where features predict the brain, for the first subjects."""
    for maps in read_weights(results.path / "derivatives", CORRELATIONS)[:MOST_BRAINS]:
        yield brain_maps.correlations(maps)


def _table(rows: pd.DataFrame, of: str, columns: dict[str, str], caption: str) -> Iterator[Part]:
    """Rows with numbers as a table; what could not be compared, and why, as sentences."""
    whole = rows
    if "ceiling_low" in rows:
        whole = whole.assign(ceiling=_span(rows, "ceiling_low", "ceiling_high"))
    if "low" in rows:
        whole = whole.assign(interval=_span(rows, "low", "high"))
    first = "value" if "value" in rows else "mean" if "mean" in rows else "r"
    known = whole[whole[first].notna()]
    if len(known):
        cells = [[row[of], *(_shown(row[name]) for name in columns)] for row in known.to_dict("records")]
        yield Table([of, *columns.values()], cells, caption)
    named = "model" if "model" in rows else "features"
    said = [
        sentence(f"{row[named]}: {row['note']}")
        for row in rows.to_dict("records")
        if isinstance(row.get("note"), str) and row["note"]
    ]
    if said:
        yield Prose(list(dict.fromkeys(said)))


def _span(rows: pd.DataFrame, low: str, high: str) -> list[str]:
    return [f"{a:.3f} to {b:.3f}" if np.isfinite(a) else "" for a, b in zip(rows[low], rows[high], strict=True)]


def _shown(value: Any) -> Any:
    """A cell: counts as they are, measurements to three digits."""
    if not isinstance(value, float):
        return value
    if not np.isfinite(value):
        return "–"
    return f"{value:.0f}" if value > 1 and value == int(value) else f"{value:.3f}"
