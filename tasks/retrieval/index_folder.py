"""An index on disk: a manifest that names everything, and one folder of arrays that it points to.

IDX/
    manifest.json       settings, encoder hash, counts, and every file with its size and SHA-256; replaced last
    items-000002/       vectors.npy, alive.npy, lengths.npy, tokens.npy, items.jsonl, vectors.faiss, tokens.faiss

A save writes a new folder of arrays beside the old one and then replaces the manifest, so that an interrupted save
leaves the old index whole.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np

from data.array_files import read_npy
from data.checksum import sha256
from data.errors import DataError
from data.text.reading import object_lines, parsed_object, read_text
from tasks.experiment.folder import RunError, sweep_up, write_whole
from tasks.retrieval.faiss_backends import FaissOptions, FaissRows
from tasks.retrieval.index import Backend, Index, Settings
from tasks.retrieval.scores import Score
from tasks.retrieval.stored_items import Precision, StoredItems

VERSION = 1
MANIFEST = "manifest.json"
ARRAYS = re.compile(r"items-\d{6}")
FILE = re.compile(r"\w+\.(npy|jsonl|faiss)")
MOSTLY_DEAD = 0.25
"""Share of dead rows above which a save drops them and makes the FAISS structures anew."""


def save(index: Index, folder: Path) -> None:
    """Write an index, in place of what the folder held.

    Args:
        index: FAISS structures that do not cover its items yet are built first
        folder: made if it is missing

    Raises:
        RunError: see `writing` and `write`
    """
    with writing(folder):
        write(index, folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the folder of an index, made if it is missing, so that nobody else writes between a reading and a `write`.

    A folder that was made for it and in which nothing was written is removed.

    Raises:
        RunError: the place is a file, holds something else, cannot be written, or another process writes it
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: a file; an index is a folder, give another place")
    if folder.exists() and not (folder / MANIFEST).is_file():
        ours = (".lock", "items-", f".{MANIFEST}.")  # of a first save that was killed
        left_over = sorted(p.name for p in folder.iterdir() if not p.name.startswith(ours))
        if left_over:
            raise RunError(f"{folder}: holds {left_over[0]}, which is no part of an index; give another folder")
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); give another place") from None
    held = False
    try:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(handle).st_nlink > 0  # else its folder has just been removed by another process
        if not held:
            raise RunError(f"{folder}: another process is writing this index; wait for it")
        sweep_up(folder)
        yield
    finally:
        if held and made and [path.name for path in folder.iterdir()] == [".lock"]:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def write(index: Index, folder: Path) -> None:
    """`save`, for who holds the folder already (see `writing`).

    Raises:
        RunError: the disk is full, or the folder cannot be written
    """
    if index.settings.backend == "exact":
        index.items.compact()
    elif index.items.dead_share > MOSTLY_DEAD or (len(index) and not index.structures):
        index.build()
    else:
        index.follow()
    try:
        _write(index, folder)
    except OSError as error:
        reason = "the disk is full; free some space" if error.errno == errno.ENOSPC else str(error.strerror)
        raise RunError(f"{folder}: cannot be written ({reason}); what it held before is untouched") from None


def load(folder: Path) -> Index:
    """Read an index; its arrays are mapped, not copied.

    Raises:
        DataError: no index, one of a newer version, or a file that is missing or cut off; `verify` says more
    """
    manifest = _manifest(folder)
    for fault in _sizes(folder, manifest):
        raise DataError(f"{folder}: {fault}; restore the folder or index the items again")
    at = folder / manifest["arrays"]
    settings = _settings(manifest["settings"])
    rows = object_lines(at / "items.jsonl")
    if not all(isinstance(row.get("id"), str) and isinstance(row.get("about"), dict) for row in rows):
        raise DataError(f"{at / 'items.jsonl'}: a line without id or about; index the items again")
    tokens = read_npy(at / "tokens.npy", "c") if settings.with_tokens else None
    vectors, alive, lengths = (
        read_npy(at / "vectors.npy", "c"),
        read_npy(at / "alive.npy"),
        read_npy(at / "lengths.npy"),
    )
    _refuse_strange(at, settings, vectors, alive, lengths, tokens)
    items = StoredItems.restored([row["id"] for row in rows], vectors, alive, tokens, lengths)
    about = {row["id"]: row["about"] for row, living in zip(rows, alive, strict=True) if living}
    index = Index(settings, items, about)
    if settings.backend != "exact":
        for path in sorted(at.glob("*.faiss")):
            index.structures[path.stem] = FaissRows.read(path, settings.backend, settings.faiss)
    return index


def verify(folder: Path) -> list[str]:
    """What is wrong with an index on disk, one line each; an empty list = complete and unchanged.

    Raises:
        DataError: there is no index at this path
    """
    manifest = _manifest(folder)
    if faults := _sizes(folder, manifest):
        return faults
    at = folder / manifest["arrays"]
    faults = [
        f"{manifest['arrays']}/{name}: content differs (SHA-256)"
        for name, known in manifest["files"].items()
        if sha256(at / name) != known["sha256"]
    ]
    if faults:
        return faults
    try:
        index = load(folder)
    except DataError as error:
        return [str(error)]
    if len(index) != manifest["items"]:
        faults.append(f"{len(index)} items, the manifest says {manifest['items']}")
    for name, held in (("vectors", index.items.vectors), ("tokens", index.items.tokens)):
        for start in range(0, len(held), 100_000):
            length = np.linalg.norm(held[start : start + 100_000].astype(np.float32), axis=1)
            if not (np.abs(length - 1) < 1e-2).all():
                faults.append(f"{name}: row {start + int(np.argmax(~(np.abs(length - 1) < 1e-2)))} has no unit length")
                break
    for name, structure in index.structures.items():
        expected = len(index.items.vectors if name == "vectors" else index.items.tokens)
        if len(structure) != expected:
            faults.append(f"{name}.faiss: {len(structure)} rows, expected {expected}")
    return faults


def _refuse_strange(
    at: Path, settings: Settings, vectors: np.ndarray, alive: np.ndarray, lengths: np.ndarray, tokens: np.ndarray | None
) -> None:
    """Arrays of another kind or shape than an index has."""
    kinds = {"vectors": (vectors, 2, "f"), "alive": (alive, 1, "b"), "lengths": (lengths, 1, "i")}
    if tokens is not None:
        kinds["tokens"] = (tokens, 2, "f")
    for name, (array, dimensions, kind) in kinds.items():
        fits = array.ndim == dimensions and array.dtype.kind == kind
        if not fits or (dimensions == 2 and array.shape[1] != settings.width) or (kind == "i" and (array < 0).any()):
            raise DataError(
                f"{at / name}.npy: {array.dtype} of shape {array.shape} is no part of this index; restore it"
            )


def described(folder: Path) -> dict[str, Any]:
    """The manifest: version, settings, counts and files.

    Raises:
        DataError: there is no index at this path
    """
    return _manifest(folder)


def _write(index: Index, folder: Path) -> None:
    written = [int(path.name.split("-")[1]) for path in folder.glob("items-*") if ARRAYS.fullmatch(path.name)]
    number = max(written, default=0) + 1
    name = f"items-{number:06d}"
    at = folder / name
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir()
    items = index.items
    as_text = json.JSONEncoder(ensure_ascii=False).encode
    lines = [
        as_text({"id": item, "about": index.about.get(item, {}) if living else {}})
        for item, living in zip(items.row_ids, items.alive, strict=True)
    ]
    _put(at / "items.jsonl", lambda file: file.write("".join(f"{line}\n" for line in lines).encode()))
    arrays = {"vectors": items.vectors, "alive": items.alive, "lengths": items.lengths}
    if items.with_tokens:
        arrays["tokens"] = items.tokens
    for key, array in arrays.items():
        _put(at / f"{key}.npy", lambda file, array=array: np.save(file, array))  # type: ignore[misc]
    for key, structure in index.structures.items():
        structure.write(at / f"{key}.faiss")
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(at.iterdir())}
    manifest = {
        "version": VERSION,
        "metric": "cosine: vectors and tokens have unit length",
        "items": len(items),
        "tokens": int(items.lengths[items.alive].sum()),
        "settings": asdict(index.settings),
        "arrays": name,
        "files": files,
    }
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False))
    for old in folder.glob("items-*"):
        if old.name != name:
            shutil.rmtree(old, ignore_errors=True)


def _put(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder}: not an index (no {MANIFEST}); `retrieval index` makes one")
    try:
        manifest = parsed_object(read_text(path), str(path))
        version = int(manifest["version"])
        if version == VERSION:
            _check(manifest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not readable ({error}); restore it or index the items again") from None
    if version != VERSION:
        raise DataError(f"{path}: version {version}, this program reads {VERSION}; index the items again")
    return manifest


def _check(manifest: dict[str, Any]) -> None:
    """Every entry of a manifest is what `_write` puts there; files are named, never placed.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: one is not
    """
    if not ARRAYS.fullmatch(manifest["arrays"]) or not isinstance(manifest["items"], int):
        raise ValueError(f"arrays {manifest['arrays']!r} of {manifest['items']!r} items")
    for name, known in manifest["files"].items():
        if not FILE.fullmatch(name) or not isinstance(known["bytes"], int) or not isinstance(known["sha256"], str):
            raise ValueError(f"file {name!r}")
    settings = _settings(manifest["settings"])
    kinds = {"encoder": str, "width": int, "weight": int | float, "token_candidates": int, "vector_candidates": int}
    odd = [name for name, kind in kinds.items() if not isinstance(getattr(settings, name), kind)]
    choices = {"score": get_args(Score), "backend": get_args(Backend), "precision": get_args(Precision)}
    odd += [name for name, known in choices.items() if getattr(settings, name) not in known]
    if odd or not isinstance(settings.origin, dict) or settings.width < 1:
        raise ValueError(f"settings.{odd[0] if odd else 'origin'}")


def _settings(said: dict[str, Any]) -> Settings:
    return Settings(**{**said, "faiss": FaissOptions(**said["faiss"])})


def _sizes(folder: Path, manifest: dict[str, Any]) -> list[str]:
    faults = []
    for name, known in manifest["files"].items():
        path = folder / manifest["arrays"] / name
        if not path.is_file():
            faults.append(f"{manifest['arrays']}/{name}: missing")
        elif path.stat().st_size != known["bytes"]:
            faults.append(f"{manifest['arrays']}/{name}: {path.stat().st_size} bytes, expected {known['bytes']}")
    return faults
