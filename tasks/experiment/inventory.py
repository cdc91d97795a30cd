"""What a finished unit left: the files that its `done.json` lists, and whether they are still what was written.

Files that came later are not listed and may change; a `done.json` without a list, of an earlier version, vouches for
nothing but its end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from data.checksum import sha256
from data.errors import DataError, one_line
from data.text.reading import parsed_object, read_text
from tasks.experiment.folder import RunError, write_whole

AGAIN = "repeat the run with --resume"
"""The remedy for what a unit lost."""
DONE, FILES = "done.json", "files"
OF_AN_ATTEMPT = (DONE, "log.txt", "error.txt")
"""Files that say how an attempt went; with the folders `log-0`, `log-1`, ... they are no results."""


def write_done(unit: Path, facts: Mapping[str, Any]) -> None:
    """End a unit: write down its facts, and the size and check sum of every file it left.

    Raises:
        RunError: the disk is full or the folder cannot be written
    """
    results = sorted(path.relative_to(unit) for path in unit.rglob("*") if path.is_file() and not path.is_symlink())
    listed = {
        name.as_posix(): {"bytes": (unit / name).stat().st_size, "sha256": sha256(unit / name)}
        for name in results
        if not _of_an_attempt(name)
    }
    write_whole(unit / DONE, json.dumps({**facts, FILES: listed}, indent=2))


def _of_an_attempt(name: Path) -> bool:
    return name.as_posix() in OF_AN_ATTEMPT or any(part.startswith((".", "log-")) for part in name.parts)


def said_of(unit: Path) -> dict[str, Any]:
    """What `done.json` says; nothing when it is not there or not readable."""
    try:
        return _read(unit)
    except DataError:
        return {}


def fault(unit: Path) -> str | None:
    """The first file of a finished unit that is missing or damaged, by its path; None = none is, or it is not finished.

    A file is read once, and again when its size or time has changed.
    """
    if not (unit / DONE).is_file():
        return None
    try:
        listed = _listed(unit)
    except DataError:
        return one_line(f"{unit / DONE}: damaged, it does not say what its unit left")
    return next(
        (one_line(f"{unit / name}: {how}") for name in listed if (how := _fault(unit / name, listed[name]))), None
    )


def is_whole(unit: Path) -> bool:
    """Whether a unit is finished and every file that it left is as it was."""
    return (unit / DONE).is_file() and fault(unit) is None


def must_be_whole(unit: Path) -> None:
    """For who cannot do without this unit.

    Raises:
        RunError: it is finished and one of its files is missing or damaged
    """
    if (lost := fault(unit)) is not None:
        raise RunError(f"{lost}; {AGAIN}")


def start_anew(unit: Path) -> None:
    """Take a finished unit's list and files away, so that nothing of them is taken for the work of the next attempt."""
    try:
        listed = _listed(unit)
    except DataError:
        listed = {}
    (unit / DONE).unlink(missing_ok=True)
    for name in listed:
        (unit / name).unlink(missing_ok=True)


def _read(unit: Path) -> dict[str, Any]:
    return parsed_object(read_text(unit / DONE), str(unit / DONE))


def _listed(unit: Path) -> dict[str, dict[str, Any]]:
    """Names below the unit's folder and what is known of each.

    Raises:
        DataError: no list that `write_done` writes; a name that would lead out of the folder is none
    """
    files = _read(unit).get(FILES, {})
    if not isinstance(files, dict) or not all(_well_formed(name, known) for name, known in files.items()):
        raise DataError(f"{unit / DONE}: its list of files is damaged")
    return files


def _well_formed(name: str, known: Any) -> bool:
    path = PurePosixPath(name)
    placed = path.is_absolute() or ".." in path.parts or "\0" in name
    return not placed and isinstance(known, dict) and {"bytes", "sha256"} <= known.keys()


def _fault(path: Path, known: dict[str, Any]) -> str | None:
    try:
        if not path.is_file():
            return "missing, although its unit had finished"
        found = path.stat()
        if found.st_size != known["bytes"]:
            return f"damaged, {found.st_size} bytes where {known['bytes']} were written"
        if _sha256(path, found.st_size, found.st_mtime_ns, found.st_ino) != known["sha256"]:
            return "damaged, its content is not what was written (SHA-256 differs)"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


@lru_cache(maxsize=10_000)
def _sha256(path: Path, size: int, changed: int, number: int) -> str:
    """Tables, reports and figures ask for the same unit many times."""
    return sha256(path)
