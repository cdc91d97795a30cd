"""Patch features on disk: `.pt`, CLAM h5 and TRIDENT h5, read lazily, one bag per patient."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.errors import DataError
from data.slides.catalogue import slide_name as slide_name  # where readers of features look for it

_STUMBLES = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)
"""What h5py and numpy raise on a file whose structure is damaged, which asks for any type, size and place."""
_PT_KEYS = ("features", "feats", "embeddings")


@dataclass(frozen=True)
class Bag:
    """Patches of one patient, slides one after another.

    Attributes:
        features: float32, `[p, c]`
        grid: level-0 pixels of the upper left corner within its slide, `[p, 2]`; None when some slide has none
        slide: index into `slides` of each patch, `[p]`
        slides: names of the slides
        sides: level-0 pixels a patch is wide, of each slide, as its file says; None where it does not; empty when
            nothing is known of any slide
    """

    features: Float[Tensor, "p c"]
    grid: Float[Tensor, "p 2"] | None
    slide: Int[Tensor, " p"]
    slides: tuple[str, ...]
    sides: tuple[float | None, ...] = ()

    @classmethod
    def join(cls, bags: Sequence[Bag]) -> Bag:
        """One bag of several, in order."""
        starts = np.cumsum([0, *(len(bag.slides) for bag in bags)])
        grids = [bag.grid for bag in bags if bag.grid is not None]
        return cls(
            features=torch.cat([bag.features for bag in bags]),
            grid=torch.cat(grids) if len(grids) == len(bags) else None,
            slide=torch.cat([bag.slide + int(start) for bag, start in zip(bags, starts, strict=False)]),
            slides=tuple(name for bag in bags for name in bag.slides),
            sides=tuple(side for bag in bags for side in bag.sides or (None,) * len(bag.slides)),
        )


@dataclass(frozen=True)
class BagShape:
    """What can be known of a feature file without reading the features."""

    patches: int
    width: int
    has_grid: bool


def feature_shape(path: Path) -> BagShape:
    """Shape of a feature file.

    Raises:
        DataError: the file is missing, cut short, or holds no feature matrix
    """
    features, coords = _opened(path)
    try:
        shape = _matrix_shape(features, path)
        return BagShape(shape[0], shape[1], coords is not None)
    finally:
        _close(features)


def read_features(path: Path, coordinates: bool = False) -> Bag:
    """Read one slide's features.

    Args:
        path: .pt (tensor, or dict with features and optionally coords) or .h5 (CLAM, TRIDENT: features and coords)
        coordinates: insist on coordinates; otherwise they are read when there are any

    Raises:
        DataError: names the slide: cut short, no patch, not finite, no or wrong coordinates
    """
    features, coords = _opened(path)
    try:
        patches, width = _matrix_shape(features, path)
        if patches == 0:
            raise DataError(
                f"slide {path.stem}: {path} holds no patch; leave the slide out, or extract its features again"
            )
        values = torch.as_tensor(np.asarray(features)).reshape(patches, width).float()
        grid = None if coords is None else torch.as_tensor(np.asarray(coords)).float()
        side = _side(path, coords)
    except DataError:
        raise
    except _STUMBLES as problem:
        raise _cut_short(path, problem) from problem
    finally:
        _close(features)
    if grid is None and coordinates:
        raise DataError(
            f"slide {path.stem}: {path} has no coordinates (dataset or key 'coords'), and this model needs to know "
            "where a patch is. Extract the features again, or choose a model that does not"
        )
    if grid is not None and grid.shape != (patches, 2):
        raise DataError(
            f"slide {path.stem}: {path} has {patches} patches but coordinates of shape {list(grid.shape)}; expected "
            f"[{patches}, 2]. Extract the features again"
        )
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).any(dim=1).sum())
        raise DataError(
            f"slide {path.stem}: {bad} of {patches} patches in {path} are not finite; extract the features again"
        )
    return Bag(values, grid, torch.zeros(patches, dtype=torch.long), (path.stem,), (side,))


def _side(path: Path, coords: h5py.Dataset | Tensor | None) -> float | None:
    """Level-0 pixels a patch is wide: TRIDENT says so beside the features, CLAM in the file of the coordinates."""
    if isinstance(coords, h5py.Dataset) and "patch_size_level0" in coords.attrs:
        return _number(coords.attrs["patch_size_level0"])
    clam = path.parent.parent / "patches" / f"{path.stem}.h5"
    if path.parent.name not in ("h5_files", "pt_files") or not clam.is_file():
        return None
    with h5py.File(clam, "r") as file:
        said = file["coords"].attrs if "coords" in file else {}
        if "patch_size" not in said or "downsample" not in said:
            return None
        return _number(np.asarray(said["patch_size"]) * np.mean(said["downsample"]))


def _number(said: Any) -> float | None:
    """An attribute as a positive number of pixels; None when it is something else."""
    try:
        value = float(said)
    except (TypeError, ValueError):
        return None
    return value if 0 < value < float("inf") else None


def _cut_short(path: Path, problem: BaseException) -> DataError:
    words = str(problem).splitlines()[0][:120] if str(problem) else type(problem).__name__
    return DataError(
        f"slide {path.stem}: {path} cannot be read ({words}); the file is cut short or damaged, make it again"
    )


def _opened(path: Path) -> tuple[h5py.Dataset | Tensor, h5py.Dataset | Tensor | None]:
    """Features and coordinates of a file, not yet read (h5) or mapped (pt)."""
    if not path.is_file():
        raise DataError(f"slide {path.stem}: no such file {path}")
    if path.suffix == ".pt":
        return _opened_pt(path)
    file = None
    try:
        file = h5py.File(path, "r")
        features, coords, found = file.get("features"), file.get("coords"), ", ".join(sorted(file))
    except _STUMBLES as problem:
        if file is not None:
            file.close()
        raise _cut_short(path, problem) from problem
    if isinstance(features, h5py.Dataset):
        return features, coords if isinstance(coords, h5py.Dataset) else None
    file.close()
    raise DataError(
        f"slide {path.stem}: {path} has no dataset 'features' (found: {found or 'nothing'}); it is not a file of "
        "features"
    )


def _opened_pt(path: Path) -> tuple[Tensor, Tensor | None]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as problem:  # torch reads foreign bytes as a program and stumbles over them in any way
        raise _cut_short(path, problem) from problem
    if isinstance(loaded, Tensor):
        return loaded, None
    if isinstance(loaded, Mapping):
        key = next((k for k in _PT_KEYS if isinstance(loaded.get(k), Tensor)), None)
        if key is not None:
            coords = loaded.get("coords")
            return loaded[key], coords if isinstance(coords, Tensor) else None
        found = ", ".join(map(str, loaded))
    else:
        found = type(loaded).__name__
    raise DataError(
        f"slide {path.stem}: {path} holds {found}; expected a tensor [patches, width] or a dict with 'features'"
    )


def _close(features: h5py.Dataset | Tensor) -> None:
    if isinstance(features, h5py.Dataset) and features:
        features.file.close()


def _matrix_shape(features: h5py.Dataset | Tensor, path: Path) -> tuple[int, int]:
    """Patches and width; the numbers of a dataset are not read yet."""
    shape = tuple(features.shape or ())
    if isinstance(features, Tensor):
        plain = features.layout == torch.strided and not features.is_complex() and not features.is_quantized
    else:
        plain = features.dtype.kind in "fiu"
    if not plain:
        raise DataError(f"slide {path.stem}: features of type {features.dtype} in {path}; expected plain real numbers")
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2:
        raise DataError(f"slide {path.stem}: features of shape {list(shape)} in {path}; expected [patches, width]")
    return int(shape[0]), int(shape[1])


class BagStore(ABC):
    """Bags of a cohort's patients, read when asked for."""

    width: int

    @property
    @abstractmethod
    def case_ids(self) -> list[str]:
        """Patients that have at least one patch."""

    @abstractmethod
    def read(self, case_id: str) -> Bag:
        """All patches of a patient, slides one after another."""

    @abstractmethod
    def inventory(self) -> list[str]:
        """A line per patient by which a change of its bag is noticed without reading it."""

    def __contains__(self, case_id: object) -> bool:
        return case_id in self.case_ids

    def __len__(self) -> int:
        return len(self.case_ids)


class MemoryBags(BagStore):
    """Bags that are already in memory."""

    def __init__(self, bags: Mapping[str, Bag]):
        self._bags = dict(bags)
        self.width = _one_width((name, bag.features.shape[1]) for bag in self._bags.values() for name in bag.slides)

    @property
    def case_ids(self) -> list[str]:
        return list(self._bags)

    def __contains__(self, case_id: object) -> bool:
        return case_id in self._bags

    def read(self, case_id: str) -> Bag:
        return self._bags[case_id]

    def inventory(self) -> list[str]:
        return [f"{case}: {len(bag.features)} patches" for case, bag in self._bags.items()]


class FileBags(BagStore):
    """Bags that stay on disk until they are asked for.

    Args:
        files: case_id -> feature files of the patient's slides, in order
        coordinates: insist on coordinates when reading

    Attributes:
        empty: slides with no patch: skipped
        without_grid: slides without coordinates

    Raises:
        DataError: a file cannot be opened, or widths differ; names the slide
    """

    def __init__(self, files: Mapping[str, Sequence[Path]], coordinates: bool = False):
        shapes = {path: feature_shape(path) for paths in files.values() for path in paths}
        self._files = {case: [p for p in paths if shapes[p].patches] for case, paths in files.items()}
        self._files = {case: paths for case, paths in self._files.items() if paths}
        self._coordinates = coordinates
        self.empty = [path.stem for path, shape in shapes.items() if not shape.patches]
        self.without_grid = [path.stem for path, shape in shapes.items() if shape.patches and not shape.has_grid]
        self.width = _one_width((path.stem, shape.width) for path, shape in shapes.items() if shape.patches)

    @property
    def case_ids(self) -> list[str]:
        return list(self._files)

    def __contains__(self, case_id: object) -> bool:
        return case_id in self._files

    def read(self, case_id: str) -> Bag:
        return Bag.join([read_features(path, coordinates=self._coordinates) for path in self._files[case_id]])

    def inventory(self) -> list[str]:
        sizes = {case: [f"{path.name} {path.stat().st_size}" for path in paths] for case, paths in self._files.items()}
        return [f"{case}: {', '.join(files)}" for case, files in sizes.items()]


def _one_width(widths: Iterable[tuple[str, int]]) -> int:
    first: tuple[str, int] | None = None
    for slide, width in widths:
        first = first or (slide, width)
        if width != first[1]:
            raise DataError(
                f"slide {slide}: its features are {width} wide, those of {first[0]} are {first[1]}; all slides of a "
                "cohort must come from one encoder. Extract this one again"
            )
    if first is None:
        raise DataError("no slide of this cohort has a single patch; check the feature folder, or run without slides")
    return first[1]
