"""What happened to every slide, one JSON line each, appended as it happens.

JSON lines rather than a database: a line is one `write`, survives a kill after it, can be read with `tail`, and works
on network file systems where SQLite's locking does not. A line cut short by a kill is skipped when reading.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

State = Literal["done", "empty", "skipped", "failed"]
FINISHED: tuple[State, ...] = ("done", "empty")


@dataclass(frozen=True)
class Record:
    """The outcome of one slide.

    Attributes:
        slide_id: identifier
        state: "done", "empty" (no tissue: a valid file without patches), "skipped" (the user must say more), "failed"
        why: reason of a skip or failure, one line
        patches: number of patches written
        seconds: wall clock
        warnings: what a user should know of a slide that was done
        slide: name, bytes and modification time of the slide file
        settings: everything that shapes the result
        facts: resolution, sizes and tissue share, for the summary
        files: what was written, relative to the folder
        at: when, seconds since 1970
    """

    slide_id: str
    state: State
    why: str = ""
    patches: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    slide: tuple[str, int, int] | None = None
    settings: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] | None = None
    files: tuple[str, ...] = ()
    at: float = 0.0

    def inside(self) -> bool:
        """Whether every file it names lies in the folder of features."""
        return all(isinstance(f, str) and not f.startswith("/") and ".." not in f.split("/") for f in self.files)


class Journal:
    """The journal file of a feature folder."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, record: Record) -> None:
        """Add one line; safe from several processes at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(asdict(record), separators=(",", ":")) + "\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            end = os.fstat(descriptor).st_size
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                line = "\n" + line
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def latest(self) -> dict[str, Record]:
        """The last record of each slide."""
        return {record.slide_id: record for record in self._records(b"")}

    def size(self) -> int:
        """Its bytes now: what is appended later stands behind them, whatever any clock says."""
        return self.path.stat().st_size if self.path.exists() else 0

    def last(self, slide_id: str, since: int = 0) -> Record | None:
        """The last record of one slide, of those that stand behind the first `since` bytes."""
        needle = f'"slide_id":{json.dumps(slide_id)},'.encode()
        return next((r for r in reversed(list(self._records(needle, since))) if r.slide_id == slide_id), None)

    def _records(self, needle: bytes, since: int = 0) -> Iterator[Record]:
        if not self.path.exists():
            return
        for line in self.path.read_bytes()[since:].splitlines():
            if needle not in line:
                continue
            try:
                said = json.loads(line)
                lists = {key: tuple(said[key]) for key in ("warnings", "files")}
                slide = None if said["slide"] is None else tuple(said["slide"])
                record = Record(**{**said, **lists, "slide": slide})
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # cut short by a kill; the slide is done again
            if isinstance(record.slide_id, str) and record.state in get_args(State) and record.inside():
                yield record


def stamp(path: Path) -> tuple[str, int, int] | None:
    """Name, bytes and modification time (nanoseconds) of a slide file; None when it is not there."""
    try:
        known = path.stat()
    except OSError:
        return None
    return path.name, known.st_size, known.st_mtime_ns


def why_again(
    record: Record | None, settings: Mapping[str, Any], slide: tuple[str, int, int] | None, folder: Path
) -> str | None:
    """Why a slide has to be done (again); None when what is there is what was asked for."""
    if record is None:
        return "new"
    if record.state not in FINISHED:
        return f"{record.state} before"
    if record.settings != settings:
        before = record.settings or {}
        changed = [f"{key} {before.get(key)} -> {now}" for key, now in settings.items() if before.get(key) != now]
        return "made with other settings: " + ", ".join(changed)
    if slide is not None and record.slide != slide:
        return "the slide file has changed"
    missing = [name for name in record.files if not (folder / name).is_file()]
    return f"{missing[0]} is missing" if missing else None
