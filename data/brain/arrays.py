"""Betas or patterns that somebody has estimated already: npz and HDF5, one file per subject or a group per subject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from data.array_files import read_npz, texts_of
from data.brain.brain import Brain, Brains, BrainSource, VoxelSpace, sample_table
from data.brain.order import natural
from data.brain.people import one_each
from data.errors import DataError
from data.sources import resolve

_HDF5, _NPZ = (".h5", ".hdf5"), (".npz",)


@dataclass(frozen=True)
class ArrayKeys:
    """Names of the arrays in a file. The last five may be absent.

    Attributes:
        x: samples by voxels
        label: the class of each sample
        run: the run or session of each sample
        stimulus: what exactly was shown
        onset: s from the start of the run
        mask: 3-D; as many voxels inside as `x` has columns
        affine: 4 x 4, of the mask
    """

    x: str = "x"
    label: str = "label"
    run: str = "run"
    stimulus: str = "stimulus"
    onset: str = "onset"
    mask: str = "mask"
    affine: str = "affine"


KEYS = ArrayKeys()


class ArrayBrains(BrainSource):
    """Brains from arrays of betas.

    Args:
        files: a folder, or files: `.npz` or `.h5` named by subject (`sub-01.npz`), or HDF5 with a group per subject
        truth: `label` to classify, `stimulus` to retrieve what exactly was shown
        keys: names of the arrays
        standardise: `run` gives each voxel mean 0 and deviation 1 in each run; `none` leaves betas alone
        targets: npz with `names` (of the candidates) and `embedding` (a row each); None = the data bring none
        ceiling: the accuracy or top-1 nobody is expected to exceed, when it is known
        subjects: labels to read; None = all
        name: what reports call the data; default: the folder's or first file's name
    """

    def __init__(
        self,
        files: str | list[str],
        truth: Literal["label", "stimulus"] = "label",
        keys: ArrayKeys = KEYS,
        standardise: Literal["run", "none"] = "none",
        targets: str | None = None,
        ceiling: float | None = None,
        subjects: list[str] | None = None,
        name: str | None = None,
    ):
        if standardise not in ("run", "none"):
            raise ValueError(f"standardise: expected run or none, found {standardise!r}")
        self.files, self.truth, self.keys, self.standardise = files, truth, keys, standardise
        self.targets, self.ceiling, self.subjects = targets, ceiling, subjects
        self.name = name or Path(files if isinstance(files, str) else files[0]).stem

    def read(self) -> Brains:
        account: list[str] = []
        parts: dict[str, Brain] = {}
        problems: list[DataError] = []
        homes: dict[str, Path] = {}
        for path in self._paths():
            try:
                with _opened(path) as content:
                    for subject, arrays in _subjects(content, path, self.keys):
                        if self.subjects is not None and subject not in self.subjects:
                            continue
                        if subject in homes:
                            raise DataError(
                                f"{path}: subject {subject} is in {homes[subject]} too; remove one of the two"
                            )
                        homes[subject] = path
                        try:
                            parts[subject] = self._brain(subject, arrays, path, account)
                        except DataError as problem:
                            problems.append(problem)
                            account.append(f"subject {subject} left out: {problem}")
            except _Unreadable as problem:
                problems.append(problem)
                account.append(f"left out: {problem}")
        if not parts:
            raise problems[0] if problems else DataError(f"{self.name}: none of the subjects {self.subjects} is here")
        if self.subjects is not None and (gone := [s for s in self.subjects if s not in homes]):
            raise DataError(f"{self.name}: no subject {gone[0]}; there are {', '.join(sorted(homes, key=natural))}")
        ordered = one_each({subject: parts[subject] for subject in sorted(parts, key=natural)}, account)
        candidates = sorted({str(v) for brain in ordered.values() for v in brain.table[self.truth]})
        targets = None
        if self.targets is not None:
            candidates, targets = _targets(resolve(self.targets), candidates, account)
        return Brains(self.name, ordered, account, candidates, self.truth, targets, self.ceiling)

    def _paths(self) -> list[Path]:
        given = [resolve(f) for f in ([self.files] if isinstance(self.files, str) else self.files)]
        paths = []
        for path in given:
            if not path.is_dir():
                paths.append(path)
                continue
            inside = sorted(p for p in path.iterdir() if p.suffix in (*_HDF5, *_NPZ))
            if not inside:
                raise DataError(f"{path}: no .npz, .h5 or .hdf5 here; give the folder that holds one file per subject")
            paths += inside
        wrong = [p for p in paths if p.suffix not in (*_HDF5, *_NPZ)]
        if wrong:
            raise DataError(f"{wrong[0]}: not .npz, .h5 or .hdf5; give arrays in one of these")
        return paths

    def _brain(self, subject: str, arrays: Mapping[str, Any], path: Path, account: list[str]) -> Brain:
        keys = self.keys
        for needed, why in ((keys.x, ""), (keys.label, ""), (keys.run, " (what is held out whole)")):
            if needed not in arrays:
                raise DataError(f"{path}: no array {needed!r}{why}; there are {', '.join(arrays) or 'none'}. Set keys")
        x = np.asarray(arrays[keys.x])
        if x.ndim != 2 or not np.issubdtype(x.dtype, np.number):
            raise DataError(f"{path}: {keys.x} is {x.dtype} of shape {x.shape}; expected numbers, samples by voxels")
        text = {key: texts_of(arrays[key], path) for key in (keys.label, keys.run, keys.stimulus) if key in arrays}
        onset = np.asarray(arrays[keys.onset], dtype=float) if keys.onset in arrays else np.full(len(x), np.nan)
        lengths = {key: len(values) for key, values in text.items()} | {keys.onset: len(onset)}
        for key, length in lengths.items():
            if length != len(x):
                raise DataError(f"{path}: {length} values in {key} for {len(x)} rows of {keys.x}; one each is needed")
        if self.truth == "stimulus" and keys.stimulus not in text:
            raise DataError(
                f"{path}: no array {keys.stimulus!r}, and stimuli are to be retrieved; add it, or truth: label"
            )
        usable = np.isfinite(x).all(axis=0)
        usable[usable] = np.ptp(x[:, usable], axis=0) > 0
        if not usable.any():
            raise DataError(f"{path}: every voxel is NaN or constant; check {keys.x}")
        space = _space(arrays, keys, usable, path)
        x = x[:, usable].astype(np.float32)
        if self.standardise == "run":
            x = _per_run(x, np.array(text[keys.run], dtype=object))
        counts = Counter(text[keys.run])
        account.append(f"subject {subject}: {len(x)} samples in {len(counts)} runs, {x.shape[1]} voxels")
        if not usable.all():
            account.append(f"subject {subject}: {int((~usable).sum())} voxels that are NaN or constant, dropped")
        table = sample_table(subject, text[keys.run], onset.tolist(), text[keys.label], text.get(keys.stimulus))
        return Brain(subject, x, table, space)


class _Unreadable(DataError):
    """A file that cannot be opened; the others go on."""


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The arrays of a file by name; HDF5 groups stay groups."""
    try:
        if path.suffix in _HDF5:
            import h5py

            with h5py.File(path, "r") as content:
                yield content
        else:
            try:
                arrays = read_npz(path)
            except DataError as problem:
                raise _Unreadable(str(problem)) from None
            yield arrays
    except DataError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError) as problem:
        raise _Unreadable(f"{path}: cannot be read ({str(problem)[:120]}); copy or write it again") from None


def _subjects(content: Any, path: Path, keys: ArrayKeys) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """One subject named by the file, or one per group."""
    groups = [] if keys.x in content else [name for name in content if hasattr(content[name], "keys")]
    if groups:
        for name in sorted(groups, key=natural):
            yield name.removeprefix("sub-"), content[name]
    else:
        yield path.stem.split("_")[0].removeprefix("sub-"), content


def _space(arrays: Mapping[str, Any], keys: ArrayKeys, usable: Bool[np.ndarray, " x"], path: Path) -> VoxelSpace | None:
    """Where the usable voxels are, when the file says."""
    if keys.mask not in arrays or keys.affine not in arrays:
        return None
    mask, affine = np.asarray(arrays[keys.mask]) > 0, np.asarray(arrays[keys.affine], dtype=float)
    if mask.ndim != 3 or mask.sum() != len(usable) or affine.shape != (4, 4):
        raise DataError(
            f"{path}: a mask of shape {mask.shape} with {int(mask.sum())} voxels and an affine of {affine.shape} for "
            f"{len(usable)} columns; give the 3-D mask the columns came from, in C order, or leave it out"
        )
    inside = mask.copy()
    inside[mask] = usable
    return VoxelSpace(inside, affine)


def _per_run(x: Float[np.ndarray, "n x"], runs: np.ndarray) -> Float[np.ndarray, "n x"]:
    scaled = np.empty_like(x)
    for run in dict.fromkeys(runs):
        rows = runs == run
        deviation = x[rows].std(axis=0)
        scaled[rows] = (x[rows] - x[rows].mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return scaled


def _targets(path: Path, shown: list[str], account: list[str]) -> tuple[list[str], Float[np.ndarray, "k e"]]:
    """Embeddings of a gallery that holds everything that was shown, sorted by name."""
    with _opened(path) as content:
        if "names" not in content or "embedding" not in content:
            raise DataError(f"{path}: expected arrays names and embedding; there are {', '.join(content) or 'none'}")
        names, embedding = texts_of(content["names"], path), np.asarray(content["embedding"], dtype=np.float32)
    if embedding.ndim != 2 or len(embedding) != len(names) or not np.isfinite(embedding).all():
        raise DataError(
            f"{path}: embedding of shape {embedding.shape} for {len(names)} names; expected one finite row per name"
        )
    if len(set(names)) < len(names):
        raise DataError(
            f"{path}: {next(n for n in names if names.count(n) > 1)} is named more than once; name each once"
        )
    lacking = sorted(set(shown) - set(names))
    if lacking:
        raise DataError(f"{path}: no embedding of {lacking[0]} ({len(lacking)} such); add it, or leave its samples out")
    account.append(f"{len(names)} candidates with embeddings of width {embedding.shape[1]}, {len(shown)} of them shown")
    order = sorted(range(len(names)), key=names.__getitem__)
    return [names[k] for k in order], embedding[order]
