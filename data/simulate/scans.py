"""A small BIDS data set with a known response: for trying out, and for seeing what a right lag looks like."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from jaxtyping import Float

from data.errors import DataError

_SHAPE, _MILLIMETRES, _BASELINE = (10, 12, 8), 6.0, 1000.0
_TASK, _SPACE = "objects", "MNI152NLin2009cAsym"


@dataclass(frozen=True)
class SimulatedScans:
    """Subjects who see blocks of objects, written as BIDS, with fMRIPrep-like derivatives if asked for.

    Each class drives its own voxels through a response that peaks 5 s after a stimulus; a trend, white noise and motion
    are added. Half of the voxels answer to no class.

    Attributes:
        subjects: labels
        runs: per subject; each shows every class once, in an order of its own
        classes: what is shown
        tr: s between volumes
        block, rest: s of a block and of the rest before it
        effect: of a class on its voxels, in the noise's standard deviation
        derivatives: write derivatives/fmriprep with preprocessed runs, brain masks and confounds
        seed: of everything
    """

    subjects: tuple[str, ...] = ("01", "02")
    runs: int = 4
    classes: tuple[str, ...] = ("bottle", "face", "house")
    tr: float = 2.0
    block: float = 12.0
    rest: float = 12.0
    effect: float = 1.5
    derivatives: bool = True
    seed: int = 0

    @property
    def frames(self) -> int:
        """Volumes of a run."""
        return int(np.ceil((len(self.classes) * (self.block + self.rest) + self.rest) / self.tr))

    def write(self, folder: Path | str) -> Path:
        """Write everything.

        Raises:
            DataError: the folder exists already
        """
        root = Path(folder)
        if root.exists():
            raise DataError(f"{root}: exists already; give another folder, or remove this one")
        root.mkdir(parents=True)
        described = {"Name": "simulated objects", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
        (root / "dataset_description.json").write_text(json.dumps(described))
        labels = [f"sub-{subject}" for subject in self.subjects]
        pd.DataFrame({"participant_id": labels}).to_csv(root / "participants.tsv", sep="\t", index=False)
        sidecar = json.dumps({"RepetitionTime": self.tr, "TaskName": _TASK})
        (root / f"task-{_TASK}_bold.json").write_text(sidecar)
        prepared = root / "derivatives" / "fmriprep"
        if self.derivatives:
            prepared.mkdir(parents=True)
            derived = described | {"Name": "simulated preprocessing", "DatasetType": "derivative"}
            (prepared / "dataset_description.json").write_text(json.dumps(derived))
        for subject, stream in zip(self.subjects, np.random.SeedSequence(self.seed).spawn(len(labels)), strict=True):
            self._subject(root, prepared, subject, np.random.default_rng(stream))
        return root

    def _subject(self, root: Path, prepared: Path, subject: str, draw: np.random.Generator) -> None:
        inside = head()
        pattern = draw.normal(size=(len(self.classes), int(inside.sum())))
        pattern[:, draw.permutation(pattern.shape[1])[: pattern.shape[1] // 2]] = 0
        pattern = self.effect * (pattern + 0.5 * (pattern != 0))
        for run in range(1, self.runs + 1):
            name = f"sub-{subject}_task-{_TASK}_run-{run}"
            order = draw.permutation(len(self.classes))
            onset = self.rest + (self.block + self.rest) * np.arange(len(order))
            shown = [self.classes[k] for k in order]
            func = root / f"sub-{subject}" / "func"
            func.mkdir(parents=True, exist_ok=True)
            events = pd.DataFrame({"onset": onset, "duration": self.block, "trial_type": shown})
            events["stim_file"] = [f"{kind}_{run}.png" for kind in shown]
            events.to_csv(func / f"{name}_events.tsv", sep="\t", index=False)
            series = self._series(pattern, order, onset, draw)
            image = self._image(series, inside)
            nibabel.save(image, func / f"{name}_bold.nii.gz")
            if self.derivatives:
                there = prepared / f"sub-{subject}" / "func"
                there.mkdir(parents=True, exist_ok=True)
                stem = f"{name}_space-{_SPACE}"
                nibabel.save(image, there / f"{stem}_desc-preproc_bold.nii.gz")
                brain = nibabel.Nifti1Image(inside.astype(np.uint8), image.affine)
                nibabel.save(brain, there / f"{stem}_desc-brain_mask.nii.gz")
                confounds = self._confounds(draw)
                path = there / f"{name}_desc-confounds_timeseries.tsv"
                confounds.to_csv(path, sep="\t", index=False, na_rep="n/a")

    def _series(
        self, pattern: np.ndarray, order: np.ndarray, onset: np.ndarray, draw: np.random.Generator
    ) -> Float[np.ndarray, "t x"]:
        fine = 0.1
        steps = np.arange(0, self.frames * self.tr, fine)
        frames = np.rint(np.arange(self.frames) * self.tr / fine).astype(int)
        kernel = response(np.arange(0, 25, fine))
        drive = np.zeros((self.frames, len(order)))
        for k, begin in zip(order, onset, strict=True):
            box = ((steps >= begin) & (steps < begin + self.block)).astype(float)
            drive[:, k] = np.convolve(box, kernel)[: len(steps)][frames] / kernel.sum()
        trend = np.linspace(-1, 1, self.frames)[:, None] * draw.normal(scale=2, size=pattern.shape[1])
        noise = draw.normal(size=(self.frames, pattern.shape[1]))
        return _BASELINE + 10 * (drive @ pattern + trend + noise)

    def _image(self, series: np.ndarray, inside: np.ndarray) -> nibabel.Nifti1Image:
        volumes = np.zeros((*_SHAPE, self.frames), dtype=np.int16)
        volumes[inside] = np.rint(series.T)
        affine = np.diag([_MILLIMETRES] * 3 + [1.0])
        affine[:3, 3] = (-27.0, -100.0, -20.0)
        image = nibabel.Nifti1Image(volumes, affine)
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((_MILLIMETRES,) * 3 + (self.tr,))
        return image

    def _confounds(self, draw: np.random.Generator) -> pd.DataFrame:
        """Motion as a random walk, its derivatives, and one slow cosine, under fMRIPrep's names."""
        table = pd.DataFrame(
            {
                f"{kind}_{axis}": np.cumsum(draw.normal(scale=0.01, size=self.frames))
                for kind in ("trans", "rot")
                for axis in "xyz"
            }
        )
        for column in list(table):
            table[f"{column}_derivative1"] = table[column].diff()
        table["cosine00"] = np.cos(np.pi * (np.arange(self.frames) + 0.5) / self.frames)
        return table


def head() -> np.ndarray:
    """An ellipsoid that fills most of the grid."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in _SHAPE], indexing="ij"))
    return np.square(grid).sum(axis=0) < 0.9


def response(seconds: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """A double-gamma haemodynamic response that peaks 5 s after a stimulus."""
    from scipy.stats import gamma

    return gamma.pdf(seconds, 6) - gamma.pdf(seconds, 16) / 6
