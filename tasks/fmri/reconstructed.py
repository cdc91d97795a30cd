"""What decoders reconstruct, kept per unit and judged per run: target tokens, latents, and pictures.

Every measure stands beside what the originals of the other candidates reach in its place, and pictures beside the mean
picture: one that everybody would draw is not taken for one of this brain.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from data.array_files import read_npz
from tasks.experiment.folder import write_whole
from tasks.experiment.state import finished_units
from tasks.fmri.baselines import correlations
from tasks.fmri.decoder import Reconstruction
from tasks.fmri.metrics import interval_over, top_k, two_way
from tasks.fmri.picture_targets import local_model
from tasks.fmri.reconstruction import ssim

FILE = "reconstructed.npz"
COLUMNS = ("arm", "kind", "measure", "value", "low", "high", "chance", "mean_picture", "n")
SMALLEST = 11
"""Pixels of the window of SSIM."""

Features = Callable[[np.ndarray], np.ndarray]
"""Pictures `[n, i, j, 3]` in bytes -> `[n, f]`, of a network that judges them."""


@dataclass(frozen=True)
class Kept:
    """The reconstructions of one unit of an arm."""

    ids: list[str]
    kinds: dict[str, Reconstruction]


def write_reconstructed(path: Path, ids: list[str], kinds: Mapping[str, Reconstruction]) -> None:
    """Keep what a unit reconstructed of its held-out samples."""
    flat = {f"{kind}/{part}": getattr(of, part) for kind, of in kinds.items() for part in ("made", "shown")}
    content = io.BytesIO()
    np.savez_compressed(content, ids=np.array(ids), **flat)  # type: ignore[arg-type]
    write_whole(path, content.getvalue())


def read_reconstructed(run: Path, arm: str) -> list[Kept]:
    """What the finished units of an arm left, in the order of folds and seeds."""
    found = []
    for unit in finished_units(run, arm):
        if not (unit / FILE).is_file():
            continue
        stored = read_npz(unit / FILE)
        kinds = sorted({key.partition("/")[0] for key in stored if key != "ids"})
        parts = {kind: Reconstruction(stored[f"{kind}/made"], stored[f"{kind}/shown"]) for kind in kinds}
        found.append(Kept([str(i) for i in stored["ids"]], parts))
    return found


def judged_reconstructions(
    run: Path, arm: str, judged: pd.DataFrame, candidates: list[str], unit: str, draws: int, networks: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Every measure of every kind of reconstruction of an arm; nothing when it makes none.

    Args:
        run: the run folder
        arm: which decoder
        judged: of its samples, for their truth and the units that are resampled
        candidates: names, in the order of the originals
        unit: what intervals draw again
        draws: resamples
        networks: name -> local folder of a vision model that judges pictures
    """
    units = read_reconstructed(run, arm)
    column = {name: k for k, name in enumerate(candidates)}
    judges: dict[str, Features] = {}
    for kind in dict.fromkeys(kind for kept in units for kind in kept.kinds):
        parts = []
        for kept in units:
            of, truth = kept.kinds[kind], np.array([column[name] for name in judged.loc[kept.ids, "truth"]])
            measures = _measures(of, truth)
            if as_pictures(of) is not None:
                judges = judges or {name: local_model(folder) for name, folder in networks.items()}
                measures = {name.replace("correlation", "PixCorr"): values for name, values in measures.items()}
                measures |= _of_pictures(of, truth, judges)
            parts.append(pd.DataFrame(measures, index=kept.ids))
        means = pd.concat(parts).groupby(level=0, sort=False).mean()
        for measure in [name for name in means if "|" not in name]:
            found = interval_over(judged.loc[means.index], means[measure].to_numpy(), unit, draws)
            beside = {
                name: means[f"{measure}|{name}"].mean() if f"{measure}|{name}" in means else np.nan
                for name in ("chance", "mean_picture")
            }
            yield {
                "arm": arm, "kind": kind, "measure": measure, "value": found.value, "low": found.low,
                "high": found.high, "n": len(means), **beside,
            }  # fmt: skip


def as_pictures(of: Reconstruction) -> tuple[np.ndarray, np.ndarray] | None:
    """Made and shown as `[n, i, j, 3]` from 0 to 1, when that is what the latents are."""
    shown = of.shown
    if shown.ndim != 4 or shown.shape[1] != 3 or shown.min() < 0 or shown.max() > 1:
        return None
    return np.clip(of.made, 0, 1).transpose(0, 2, 3, 1), shown.transpose(0, 2, 3, 1)


def _measures(of: Reconstruction, truth: Int[np.ndarray, " n"]) -> dict[str, Float[np.ndarray, " n"]]:
    made, shown = (part.reshape(len(part), -1).astype(np.float64) for part in (of.made, of.shown))
    alike = correlations(made, shown)
    own = alike[np.arange(len(made)), truth]
    return {
        "two-way": two_way(alike, truth),
        "two-way|chance": np.full(len(made), 0.5),
        "top-1": top_k(alike, truth),
        "top-1|chance": np.full(len(made), 1 / len(shown)),
        "correlation": own,
        "correlation|chance": (alike.sum(axis=1) - own) / (len(shown) - 1),
    }


def _of_pictures(
    of: Reconstruction, truth: Int[np.ndarray, " n"], judges: Mapping[str, Features]
) -> dict[str, Float[np.ndarray, " n"]]:
    """SSIM and the networks' two-way identification; the correlation of pixels, PixCorr, beside the mean picture."""
    pictures = as_pictures(of)
    assert pictures is not None
    made, shown = pictures
    mean = np.broadcast_to(shown.mean(axis=0), made.shape)
    flat = (mean.reshape(len(made), -1), shown.reshape(len(shown), -1))
    found = {"PixCorr|mean_picture": correlations(*flat)[np.arange(len(made)), truth]}
    if made.shape[1] >= SMALLEST:
        another = (truth + 1) % len(shown)
        found["SSIM"], found["SSIM|chance"] = ssim(made, shown[truth]), ssim(made, shown[another])
        found["SSIM|mean_picture"] = ssim(mean, shown[truth])
    for name, features in judges.items():
        alike = correlations(*(features((255 * part).round().astype(np.uint8)) for part in (made, shown)))
        found[f"two-way, {name}"] = two_way(alike.astype(np.float64), truth)
        found[f"two-way, {name}|chance"] = np.full(len(made), 0.5)
    return found
