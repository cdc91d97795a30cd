"""Results as a BIDS derivatives dataset: tables with sidecars, weight maps, and where they come from."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from jaxtyping import Float

from data.brain.brain import Brains, VoxelSpace
from tasks.experiment.folder import RunError, write_whole

BIDS_VERSION = "1.10.0"
PACKAGE = "multimodal-fusion"

_COLUMNS = {
    "sample": "Sample: subject, run and position within the run.",
    "run": "Run of the sample.",
    "onset": {"Description": "Onset of the sample within its run, without the lag.", "Units": "s"},
    "label": "Class that was shown.",
    "truth": "The candidate that is right.",
    "decoded": "The candidate with the highest score; of several seeds, the highest mean score.",
    "correct": "1 when decoded and truth agree.",
}


@dataclass(frozen=True)
class MapKind:
    """What the values of a voxel map are: the suffix of its files, and the words of its sidecar."""

    suffix: str
    said: str


WEIGHTS = MapKind("weights", "Weight of each voxel for each label, mean over folds; the grid and affine of the data.")
CORRELATIONS = MapKind(
    "statmap", "Correlation of predicted and measured responses on held-out samples; the grid and affine of the data."
)


@dataclass(frozen=True)
class Weights:
    """Voxel maps of one decoder in one subject: where the voxels are, and a value per voxel for each label."""

    subject: str
    arm: str
    space: VoxelSpace
    maps: dict[str, Float[np.ndarray, " x"]]


def describe(out: Path, name: str, source: str | None = None) -> Path:
    """Write `dataset_description.json`.

    Args:
        out: the derivatives dataset
        name: its name
        source: where the raw data came from, a path or address

    Raises:
        RunError: the folder is a data set that something else made, such as the raw data or fMRIPrep's derivatives
    """
    path = out / "dataset_description.json"
    if path.is_file() and PACKAGE not in path.read_text(errors="replace"):
        raise RunError(
            f"{path}: this data set was not made here and is left as it is; give an output folder of its own"
        )
    content: dict[str, Any] = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": PACKAGE, "Version": importlib.metadata.version(PACKAGE)}],
    }
    if source is not None:
        content["SourceDatasets"] = [{"URL": source}]
    out.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=2))
    return path


def decoded_table(who: pd.DataFrame, scores: pd.DataFrame, known: bool = True) -> pd.DataFrame:
    """The rows of one subject as a derivative holds them.

    Args:
        who: columns run, onset and, where the truth is known, label and truth; indexed by sample id
        scores: a column per candidate, indexed by sample id
        known: whether `label` and `truth` mean anything
    """
    own = who.loc[scores.index]
    decoded = scores.columns.to_numpy()[scores.to_numpy(dtype=float).argmax(axis=1)]
    rows = own[["run", "onset", *(["label", "truth"] if known else [])]].reset_index(names="sample")
    rows = rows.assign(decoded=decoded)
    if known:
        rows["correct"] = (rows["decoded"] == rows["truth"]).astype(int)
    return pd.concat([rows, scores.reset_index(drop=True).add_prefix("score_")], axis=1)


def write_subject(
    out: Path,
    subject: str,
    arm: str,
    rows: pd.DataFrame,
    facts: Mapping[str, Any],
    suffix: str = "decoding",
) -> list[Path]:
    """Write one subject's decoded samples as `sub-01/func/sub-01_desc-ARM_decoding.tsv` and its sidecar.

    Args:
        out: the derivatives dataset
        subject: label
        arm: which decoder
        rows: of `decoded_table`
        facts: what the sidecar says beside the columns: split, lag, accuracy, whether runs were cut
        suffix: last part of the file name
    """
    stem = out / f"sub-{subject}" / "func" / f"sub-{subject}_desc-{entity(arm)}_{suffix}"
    columns = {
        name: _COLUMNS.get(name, f"Score of {name.removeprefix('score_')}; higher = better match.") for name in rows
    }
    said = {name: words if isinstance(words, dict) else {"Description": words} for name, words in columns.items()}
    return _table_with_sidecar(stem, rows, {**facts, "Decoder": arm}, said)


def write_weights(
    out: Path,
    brains: Brains,
    arm: str,
    maps: Mapping[str, Mapping[str, np.ndarray]],
    facts: Mapping[str, Any],
    kind: MapKind = WEIGHTS,
) -> list[Path]:
    """Write voxel maps as `sub-01/func/sub-01_label-FACE_desc-ARM_weights.nii.gz`, where the data have an affine.

    Args:
        out: the derivatives dataset
        brains: for the voxel spaces
        arm: which decoder
        maps: subject -> label -> a value per voxel
        facts: what the sidecar says beside the labels
        kind: of the values
    """
    written = []
    for subject, of in maps.items():
        space = brains.subjects[subject].space
        if space is None:
            continue
        folder = out / f"sub-{subject}" / "func"
        folder.mkdir(parents=True, exist_ok=True)
        mask = folder / f"sub-{subject}_desc-decoded_mask.nii.gz"
        write_whole(mask, _gzipped(nib.Nifti1Image(space.mask.astype(np.uint8), space.affine)))
        written.append(mask)
        for name, values in of.items():
            path = _map_path(folder, subject, entity(name), arm, kind)
            write_whole(path, _gzipped(image(space, values)))
            written.append(path)
        sidecar = folder / f"sub-{subject}_desc-{entity(arm)}_{kind.suffix}.json"
        labels = {entity(name): name for name in of}
        said = {**facts, "Decoder": arm, "Labels": labels, "Description": kind.said}
        write_whole(sidecar, json.dumps(said, indent=2))
        written.append(sidecar)
    return written


def read_weights(out: Path, kind: MapKind = WEIGHTS) -> list[Weights]:
    """The voxel maps of one kind in a derivatives dataset, in the order of their subjects and decoders."""
    found = []
    for sidecar in sorted(out.glob(f"sub-*/func/*_{kind.suffix}.json")):
        said = json.loads(sidecar.read_text())
        subject = sidecar.parent.parent.name.removeprefix("sub-")
        mask: Any = nib.load(sidecar.with_name(f"sub-{subject}_desc-decoded_mask.nii.gz"))
        space = VoxelSpace(np.asarray(mask.dataobj) > 0, np.asarray(mask.affine, dtype=float))
        maps = {}
        for label, name in said["Labels"].items():
            volume: Any = nib.load(_map_path(sidecar.parent, subject, label, said["Decoder"], kind))
            maps[name] = np.asarray(volume.dataobj)[space.mask]
        found.append(Weights(subject, said["Decoder"], space, maps))
    return found


def _map_path(folder: Path, subject: str, label: str, arm: str, kind: MapKind) -> Path:
    return folder / f"sub-{subject}_label-{label}_desc-{entity(arm)}_{kind.suffix}.nii.gz"


def image(space: VoxelSpace, values: Float[np.ndarray, " x"]) -> nib.Nifti1Image:
    """One value per voxel as a volume with the data's affine."""
    return nib.Nifti1Image(space.volume(values.astype(np.float32)), space.affine)


def write_metrics(out: Path, name: str, rows: pd.DataFrame, facts: Mapping[str, Any]) -> list[Path]:
    """Write metrics of every arm, per subject (`metrics`) or per class (`classes`), as `NAME.tsv` with its sidecar."""
    said = {column: {"Description": words} for column, words in _METRICS.items() if column in rows}
    return _table_with_sidecar(out / name, rows, facts, said)


def write_comparison(out: Path, name: str, rows: pd.DataFrame, facts: Mapping[str, Any]) -> list[Path]:
    """Write what was compared with the brains (encoding, geometry, Brain-Score) as `NAME.tsv` with its sidecar."""
    said = {column: {"Description": words} for column, words in _COMPARED.items() if column in rows}
    return _table_with_sidecar(out / name.replace("-", ""), rows, facts, said)


_COMPARED = {
    "features": "Model of what was shown.",
    "model": "Model of what was shown.",
    "between": "Whose geometries: of the runs of a subject, or of subjects.",
    "mean": "Mean over voxels of the correlation of predicted and measured responses on held-out samples.",
    "median": "Median over voxels of the same.",
    "best": "Highest over voxels of the same.",
    "significant": "Voxels above p95.",
    "p95": "95th percentile under permuted labels; of encoding, that of the best voxel.",
    "value": "The measurement.",
    "low": "Lower end of the 95 % interval; of a noise ceiling, its lower end.",
    "high": "Upper end of the same.",
    "score": "r squared / ceiling.",
    "r": "Median over voxels, mean over splits of the correlation on held-out stimuli.",
    "ceiling": "Split-half reliability of the responses (Spearman-Brown), median over voxels.",
    "shuffled": "r (of encoding, the mean over voxels) when the features belong to other candidates.",
    "measure": "What was measured of a reconstruction.",
    "chance": "What a guess reaches, or the originals of the other candidates.",
    "mean_picture": "What the mean of all originals reaches.",
    "note": "What a reader has to know, or why there is no number.",
}

_METRICS = {
    "arm": "Decoder, baseline or control.",
    "subject": "Subject, or all of them together.",
    "label": "Class that was shown.",
    "metric": "What was measured.",
    "value": "The measurement.",
    "low": "Lower end of the 95 % interval.",
    "high": "Upper end of the 95 % interval.",
    "n": "Samples.",
    "units": "Units that the interval resamples.",
    "note": "What was resampled; of retrieval, in which galleries.",
    "chance": "Value of a guess.",
    "null_p95": "95th percentile of the same metric when labels are permuted within runs.",
    "cuts_runs": "true = runs lie on both sides of the split, and the value may be inflated by a leak.",
}


def entity(name: str) -> str:
    """A name as a BIDS entity: letters and digits only."""
    return re.sub(r"[^A-Za-z0-9]", "", name.title() if " " in name or "_" in name else name) or "x"


def _table_with_sidecar(
    stem: Path, rows: pd.DataFrame, facts: Mapping[str, Any], columns: Mapping[str, Any]
) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    table, sidecar = stem.with_name(stem.name + ".tsv"), stem.with_name(stem.name + ".json")
    write_whole(table, rows.to_csv(index=False, sep="\t", na_rep="n/a"))
    write_whole(sidecar, json.dumps({**facts, **columns}, indent=2, default=str))
    return [table, sidecar]


def _gzipped(volume: nib.Nifti1Image) -> bytes:
    import gzip

    return gzip.compress(volume.to_bytes(), mtime=0)
