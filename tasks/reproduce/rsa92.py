"""rsa92: geometries of 92 object images in the brains of 15 people, and of 4 people of another scanner.

Dissimilarities of early visual and inferior temporal cortex (Net2Brain's copy) and of human inferior temporal cortex
(Kriegeskorte et al., Neuron 60, 2008; rsatoolbox's copy). Ours is held against the project's own earlier measurement
on the same files by other code. Stimuli and voxels are not needed, only the RDMs.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.io import loadmat

from data.array_files import read_npz
from data.sources import not_here
from tasks.fmri.rsa import between_people, category_model, compare_rdms, identification, noise_ceiling
from tasks.reproduce.rows import Found, Result, Row, at_least, close, result

PAPER = "rsa92"
CEILING = {"IT": (0.449, 0.542), "EVC": (0.239, 0.392)}
TOP_1, TOP_5, OTHER_SCANNER = 0.127, 0.375, 0.56
TOLERANCE = 0.01


def run(data_root: Path, small: bool = False) -> Result:
    """Measure ceilings, identification and category models.

    Args:
        data_root: the imported data set fmri
        small: without the models and their permutations

    Raises:
        DataError: the data set is not there
    """
    folder = data_root / "rdms_92images"
    rdms = {area: people(folder, area) for area in CEILING}
    rows = [row for area in CEILING for row in _ceiling(area, rdms[area])]
    rows += _identification(rdms["IT"])
    rows += _other_scanner(folder, rdms["IT"])
    return result(PAPER, rows if small else [*rows, *_models(folder, rdms)])


def people(folder: Path, area: str) -> Float[np.ndarray, "s n n"]:
    """The RDMs of 15 people in one area, IT or EVC.

    Raises:
        DataError: the file is not there
    """
    return read_npz(_present(folder / f"fmri_{area}_RDMs.npz"))["Net_RDM"]


def _present(path: Path) -> Path:
    if not path.is_file():
        raise not_here(path, "fmri")
    return path


def _ceiling(area: str, rdms: Float[np.ndarray, "s n n"]) -> Iterator[Row]:
    ceiling = noise_ceiling(rdms)
    mean = between_people(rdms)[np.triu_indices(len(rdms), 1)].mean()
    note = (
        "Spearman; means of ranks at both ends (raw dissimilarities move the lower one by .004); "
        f"mean correlation of two people {mean:.3f}"
    )
    for end, before, ours in zip(("lower", "upper"), CEILING[area], (ceiling.low, ceiling.high), strict=True):
        yield close(
            f"{area}: noise ceiling, {end} end",
            before,
            ours,
            TOLERANCE,
            note,
            kind="measured",
            n=len(rdms),
            of="people",
        )


def _identification(rdms: Float[np.ndarray, "s n n"]) -> Iterator[Row]:
    found = identification(rdms)
    for name, column, before, chance in (("top-1", "top1", TOP_1, 1 / 92), ("top-5", "top5", TOP_5, 5 / 92)):
        spread = found[column]
        note = (
            f"92 images of each of {len(found)} people from the mean RDM of the others, the two compared conditions "
            f"left out of every row; chance {chance:.3f}, people {spread.min():.3f} to {spread.max():.3f}"
        )
        title = f"IT: identification from the group, {name}"
        yield close(title, before, spread.mean(), TOLERANCE, note, kind="measured", n=len(found), of="people")


def _other_scanner(folder: Path, rdms: Float[np.ndarray, "s n n"]) -> Iterator[Row]:
    stored = loadmat(_present(folder / "kriegeskorte2008_brainRDMs.mat"))["RDMs"]
    theirs = np.mean([np.asarray(entry["RDM"], dtype=np.float64) for entry in stored.ravel()], axis=0)
    agreement = between_people(np.stack([rdms.mean(axis=0), theirs]))[0, 1]
    note = "Spearman of the mean RDM of 15 people with that of 4 others (2 sessions each): the images have one order"
    yield close("IT: two groups of people", OTHER_SCANNER, agreement, TOLERANCE, note, kind="measured")


def _models(folder: Path, rdms: dict[str, Float[np.ndarray, "s n n"]]) -> Iterator[Row]:
    labels = pd.read_csv(_present(folder / "labels.tsv"), sep="\t")["category"].tolist()
    shuffled = list(np.random.default_rng(0).permutation(labels))
    models = {"categories": category_model(labels), "shuffled categories": category_model(shuffled)}
    for area, own in rdms.items():
        table = compare_rdms(models, own).set_index("model")
        for name, row in table.iterrows():
            note = (
                f"Spearman, interval over people, p {row['p']:.3f}, ceiling {row['ceiling_low']:.3f} to "
                f"{row['ceiling_high']:.3f}; "
            )
            found = Found(low=float(row["low"]), high=float(row["high"]), n=len(own), of="people")
            if name == "categories":
                note += "the bar is the 95 % of models with permuted conditions"
                yield at_least(f"{area}: categories", row["p95"], row["value"], 0.0, note, kind="bar", **found)
            else:
                note += "a control, 0 within twice the permuted 95 %"
                yield close(f"{area}: {name}", 0.0, row["value"], 2 * row["p95"], note, kind="bar", **found)
