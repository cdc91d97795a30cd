"""Files that a command writes at its end: what cannot be written is refused before anything is computed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tasks.experiment.folder import RunError


def check_output(path: Path) -> None:
    """Refuse a file that `write_whole` could not write; nothing is left behind, neither a file nor a folder.

    Args:
        path: of the file; folders above it may be missing

    Raises:
        RunError: something else stands there, a file stands where a folder is needed, the name is too long, or
            nothing can be written there
    """
    try:
        if path.is_dir():
            raise RunError(f"{path}: a folder, and a file is wanted; give the name of a file, such as {path / 'NAME'}")
        if path.exists() and not path.is_file():
            raise RunError(f"{path}: no ordinary file, and one is wanted; give another path")
        path.with_name(f".{path.name}.{os.getpid()}.tmp").exists()  # the name it is written under may be too long
        folder = next((place for place in path.parents if place.exists()), Path())
        if not folder.is_dir():
            raise RunError(f"{path}: {folder} is a file, so no folder of that name can hold it; give another path")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); give another path") from None
