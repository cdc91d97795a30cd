"""Arrays of .npy and .npz files: no pickle is ever opened, and whatever numpy stumbles over is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from data.errors import DataError


def read_npy(path: Path, mapped: Literal["r", "c"] | None = None) -> np.ndarray:
    """The array of a .npy file.

    Args:
        path: of the file
        mapped: leave it on disk: r = read only, c = changes stay in memory

    Raises:
        DataError: no such file, cut short, damaged, or Python objects, which are not read
    """
    try:
        with path.open("rb") as raw:
            array: np.ndarray = (
                np.lib.format.read_array(raw, allow_pickle=False)
                if mapped is None
                else np.lib.format.open_memmap(path, mode=mapped)
            )
    except Exception as problem:
        raise _unreadable(path, problem) from None
    if array.dtype.hasobject:
        raise DataError(f"{path}: holds Python objects, which are not read; write plain numbers or text")
    return array


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name.

    Raises:
        DataError: as `read_npy`
    """
    try:
        with path.open("rb") as raw, np.lib.npyio.NpzFile(raw, allow_pickle=False) as packed:
            # A member of another name than *.npy is handed out as bytes.
            return {name: array for name in packed.files if isinstance(array := packed[name], np.ndarray)}
    except Exception as problem:
        raise _unreadable(path, problem) from None


def texts_of(array: ArrayLike, path: Path) -> list[str]:
    """The entries of an array as text, row by row.

    Raises:
        DataError: bytes that are no text
    """
    try:
        return [v.decode() if isinstance(v, bytes) else str(v) for v in np.asarray(array).ravel().tolist()]
    except (UnicodeError, ValueError, SystemError) as problem:  # numpy does not check the characters it is given
        raise DataError(f"{path}: names that are no text ({problem}); write them as UTF-8") from None


def _unreadable(path: Path, problem: Exception) -> DataError:
    """numpy takes the header for a piece of Python, and raises whatever its compiler, zip and system do."""
    if isinstance(problem, FileNotFoundError):
        return DataError(f"{path}: no such file")
    return DataError(
        f"{path}: cannot be read as arrays ({str(problem)[:120] or type(problem).__name__}); copy or write it again"
    )
