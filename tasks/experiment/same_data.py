"""A run goes on only with the data it began with.

Finished units are kept by their config, which names files and not what they hold: after a change of the files,
`--resume` would put units of two data sets into one table.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data.text.reading import parsed_object
from tasks.experiment.folder import RunError, write_whole
from tasks.experiment.state import text

CONTENT = "content.json"
PIECE, PIECES = 4096, 4096
"""Bytes of a piece of a file, and how many pieces of all files together, at least two of each."""


def digest(*parts: np.ndarray | str | None) -> str:
    """Sixteen hexadecimal digits for arrays and texts in this order."""
    seen = hashlib.sha256()
    for part in parts:
        kind = f"{part.dtype} {part.shape}" if isinstance(part, np.ndarray) else type(part).__name__
        seen.update(kind.encode())
        if part is not None:
            seen.update(np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else part.encode())
    return seen.hexdigest()[:16]


def digest_of_files(files: Sequence[Path]) -> str:
    """A digest of files by their sizes and by pieces of them: the beginning, the end and, of few files, more between.

    A file that was made again has another size or other pieces; a change of a few bytes inside a large one may be
    missed. Ten thousand files take half a second.

    Args:
        files: each counts once; one that has gone counts as empty
    """
    named = list(dict.fromkeys(files))
    pieces = max(2, PIECES // max(1, len(named)))
    seen = hashlib.sha256()
    for file in named:
        try:
            with file.open("rb") as content:
                size = os.fstat(content.fileno()).st_size
                seen.update(f"{size} ".encode())
                last = max(0, size - PIECE)
                for at in range(pieces if last else 1):
                    content.seek(last * at // (pieces - 1))
                    seen.update(content.read(PIECE))
        except OSError:
            seen.update(b"gone")
    return seen.hexdigest()[:16]


def refuse_other_data(run: Path, now: Mapping[str, str]) -> None:
    """Note what a new run is of; of one that goes on, check that it is still of the same.

    Args:
        run: its folder
        now: part of the data, in words -> digest of what it holds

    Raises:
        RunError: a part was added, is gone or holds something else
    """
    path = run / CONTENT
    before = parsed_object(text(path) or json.dumps(dict(now)), str(path))
    if changed := sorted(part for part in {*before, *now} if before.get(part) != now.get(part)):
        raise RunError(
            f"{run}: {', '.join(changed)}: not what this run began with, and its finished units would stand beside "
            "units of other data; give the run another name, or remove its folder"
        )
    write_whole(path, json.dumps(dict(now), indent=2))
