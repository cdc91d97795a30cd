"""NIfTI files: opened with one-line errors, checked against a mask, turned into frames by voxels."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Bool, Float
from nibabel.filebasedimages import ImageFileError

from data.brain.brain import VoxelSpace
from data.errors import DataError

_BROKEN = (ImageFileError, EOFError, OSError, ValueError, OverflowError, MemoryError, zlib.error)
_LONGEST_TR = 30.0

SURFACES = (
    "Surface data are not read as scans: give volumes (fMRIPrep: --output-spaces MNI152NLin2009cAsym), or betas of "
    "vertices as arrays (ArrayBrains)"
)


def open_bold(path: Path) -> Any:
    """A 4-D functional image; its data are not read yet.

    Raises:
        DataError: no such file, not an image, or not 4-D with at least 2 volumes
    """
    image = _opened(path)
    shape = image.shape
    if len(shape) != 4:
        what = "one volume, perhaps a mask or a mean" if len(shape) == 3 else f"{len(shape)} dimensions"
        raise DataError(f"{path}: shape {shape}, {what}; a run is 4-D (x, y, z, time): give the functional series")
    if shape[3] < 2:
        raise DataError(f"{path}: {shape[3]} volume; a run is a series of volumes: give the functional series")
    return image


def read_mask(path: Path, above: float = 0.0) -> VoxelSpace:
    """The voxels of a 3-D image that are above a value.

    Args:
        path: NIfTI; a fourth dimension of length 1 is dropped
        above: 0 for masks; a probability such as .5 for tissue maps

    Raises:
        DataError: no such file, not an image, not 3-D, or no voxel above
    """
    image = _opened(path)
    values = _values(image, path)
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise DataError(f"{path}: shape {values.shape}; a mask is 3-D: give one volume that is 1 inside and 0 outside")
    inside = np.nan_to_num(values, nan=0.0) > above
    if not inside.any():
        raise DataError(f"{path}: no voxel above {above:g}; give a mask that is 1 inside and 0 outside")
    return VoxelSpace(inside, np.asarray(image.affine, dtype=float))


def brain_mask(paths: Sequence[Path]) -> VoxelSpace:
    """A brain mask computed from functional runs by nilearn (intensity histogram, voxels common to all runs).

    Raises:
        DataError: nothing that looks like a brain
    """
    from nilearn.exceptions import MaskWarning
    from nilearn.masking import compute_multi_epi_mask

    images = [open_bold(path) for path in paths]
    try:
        with warnings.catch_warnings():
            # An empty mask is an error of ours below.
            warnings.simplefilter("ignore", MaskWarning)
            mask = compute_multi_epi_mask(images, threshold=1.0, verbose=0)
    except _BROKEN as problem:
        _check_alike(images, paths)
        raise DataError(f"{paths[0]}: no brain mask can be computed ({_short(problem)}); give mask") from None
    inside = np.asarray(mask.dataobj) > 0
    if not inside.any():
        raise DataError(f"{paths[0]}: the computed brain mask is empty; give mask")
    return VoxelSpace(inside, np.asarray(mask.affine, dtype=float))


def without_a_number(image: Any, where: Bool[np.ndarray, "i j k"]) -> int:
    """How many of some voxels hold nan or infinity in any volume."""
    return int((~np.isfinite(np.asanyarray(image.dataobj)).all(axis=-1) & where).sum())


def check_same_space(image: Any, path: Path, space: VoxelSpace, mask: str) -> None:
    """Mask and image must have one grid, in voxels and in millimetres.

    Raises:
        DataError: they do not; names both
    """
    if image.shape[:3] != space.mask.shape:
        found = f"a grid of {image.shape[:3]}, the mask {space.mask.shape}"
    elif not np.allclose(image.affine, space.affine, atol=1e-2):
        apart = np.abs(_corners(image.affine, space.mask.shape) - _corners(space.affine, space.mask.shape)).max()
        found = f"the grid of the mask, but lies up to {apart:.3g} mm away from it (their affines differ)"
    else:
        return
    raise DataError(
        f"{path}: has {found}. Resample the mask {mask} to this image (nilearn.image.resample_to_img, nearest), or "
        "give the mask of this space"
    )


def masked(
    image: Any, path: Path, mask: Bool[np.ndarray, "i j k"], smooth: float | None = None
) -> Float[np.ndarray, "t x"]:
    """Frames by voxels, float32; columns follow the mask in C order.

    Args:
        image: 4-D
        path: of the image, for messages
        mask: voxels to keep
        smooth: width in mm (FWHM) of a Gaussian that every whole volume is smoothed with first; None = not at all

    Raises:
        DataError: the file ends before its data do
    """
    values = _values(image, path)
    if smooth is not None:
        from nilearn.image import smooth_img

        blurred = smooth_img(nibabel.Nifti1Image(values, image.affine), smooth).get_fdata(dtype=np.float32)
        # nilearn takes NaN for 0; a voxel that was never measured stays so.
        values = np.where(np.isfinite(values), blurred, values)
    return np.ascontiguousarray(values[mask].T)


def header_tr(image: Any, path: Path) -> float | None:
    """Seconds between volumes as the header says; None when it does not.

    nibabel writes 1 without a unit where nobody set a repetition time, so that counts as not said.

    Raises:
        DataError: a repetition time that no scanner has, such as milliseconds called seconds
    """
    step = float(image.header.get_zooms()[3])
    try:
        unit = image.header.get_xyzt_units()[1]
    except KeyError:  # a code that NIfTI does not have
        unit = "unknown"
    if step <= 0 or not np.isfinite(step) or (unit not in ("sec", "msec", "usec") and step == 1.0):
        return None
    seconds = step * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
    if seconds > _LONGEST_TR:
        raise DataError(
            f"{path}: the header says TR {seconds:g} s, which looks like milliseconds called seconds; give tr (in "
            f"seconds, for example {seconds / 1000:g})"
        )
    return seconds


def repetition_time(path: Path, header: float | None, sidecar: float | None, given: float | None) -> float:
    """The one repetition time of a run, in s.

    Args:
        path: of the run
        header: what its header says
        sidecar: what the sidecar or scan_key.txt says
        given: what the config says; it is believed

    Raises:
        DataError: nobody says it, or header and sidecar contradict each other
    """
    if given is not None:
        return given
    if header is not None and sidecar is not None and abs(header - sidecar) > 1e-3:
        raise DataError(
            f"{path}: TR is {header:g} s in the header and {sidecar:g} s in the sidecar; correct one, or give tr"
        )
    tr = sidecar if sidecar is not None else header
    if tr is None:
        raise DataError(
            f"{path}: no TR in the header and no RepetitionTime in a sidecar; give tr (seconds between volumes)"
        )
    if not 0 < tr <= _LONGEST_TR:
        raise DataError(f"{path}: TR {tr:g} s; expected seconds between volumes, more than 0 and at most 30; give tr")
    return tr


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        image = nibabel.load(path)
    except Exception as problem:  # nibabel believes the header, and stumbles over a damaged one in any way
        raise DataError(f"{path}: not a NIfTI image ({_short(problem)}); copy or convert it again") from None
    if not isinstance(image, nibabel.spatialimages.SpatialImage):
        raise DataError(f"{path}: {type(image).__name__}, not a volume. {SURFACES}")
    return image


def _check_alike(images: Sequence[Any], paths: Sequence[Path]) -> None:
    """Every run can be read to its end and lies on the grid of the first.

    Raises:
        DataError: the first run that does not
    """
    for image, path in zip(images, paths, strict=True):
        _values(image, path)
        if image.shape[:3] != images[0].shape[:3] or not np.allclose(image.affine, images[0].affine, atol=1e-2):
            raise DataError(f"{path}: another grid than {paths[0]}; give runs of one space, or a mask for each")


def _values(image: Any, path: Path) -> Float[np.ndarray, "i j k"] | Float[np.ndarray, "i j k t"]:
    try:
        return np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except _BROKEN as problem:
        raise DataError(f"{path}: the file ends before its data do ({_short(problem)}); copy it again") from None


def _corners(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    return ends @ affine[:3, :3].T + affine[:3, 3]


def _short(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0][:120]
