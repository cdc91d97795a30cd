"""The run folder: who may write it, what it says about itself, and how files get into it whole.

runs/<task>/<name>/
    config.yaml         the resolved config, every default included
    environment.json    versions, commit, devices, command
    account.txt         which cases were dropped, and why
    left_out.json       which arms were not run, and why
    <arm>/fold0-seed1/  one unit of work: predictions.csv, curves.csv, epochs.csv, log.txt, done.json (or error.txt)
    summary.csv  comparisons.csv  report.html
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from data.errors import one_line
from tasks.experiment.config import refuse_endless
from tasks.experiment.signatures import ConfigError

PACKAGES = (
    "torch",
    "triton",
    "lightning",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "lifelines",
    "nibabel",
    "nilearn",
    "multimodal-fusion",
)


RESTORE = "restore it, or remove it and train again with --resume, which keeps finished units"
"""The remedy for a run's `config.yaml`, which a training with the same config writes again."""
SECTION, TEXT, NUMBER = "a mapping", "text", "a number"
_KINDS: dict[str, tuple[type, ...]] = {SECTION: (dict,), TEXT: (str,), NUMBER: (int, float)}
SHAPE = {
    **dict.fromkeys(("rivals", "baselines", "model", "split", "fit", "trainer"), SECTION),
    **dict.fromkeys(("cohort", "music", "brains", "pairs"), SECTION),
    **dict.fromkeys(("controls", "controls.networks", "spaces", "spaces.embedders"), SECTION),
    **dict.fromkeys(("controls.permutations", "brains.init_args.lag"), NUMBER),
}
"""What stands under a key of a run's config, if anything. Every `class_path` is text, every `init_args` a mapping."""


class RunError(RuntimeError):
    """A run folder cannot be used as asked; the message says what to do."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        RunError: the disk is full or the folder cannot be written
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise RunError(f"{path}: the disk is full; free some space and repeat with --resume") from None
        raise RunError(f"{path}: cannot be written ({error.strerror})") from None


def sweep_up(folder: Path) -> None:
    """Remove the temporary files of `write_whole` whose writers were killed; those of living processes stay."""
    for left in folder.glob(".*.tmp"):
        writer = left.name.removesuffix(".tmp").rpartition(".")[2]
        if writer.isdigit() and not _alive(int(writer)):
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return process != os.getpid()  # of an earlier process of this number: this one sweeps before it writes


class RunFolder:
    """One experiment's folder."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run.

        Raises:
            RunError: there is no run at this path
        """
        if not (path / "config.yaml").is_file():
            near = sorted(p.parent.name for p in path.parent.glob("*/config.yaml")) if path.parent.is_dir() else []
            hint = f"; beside it are {', '.join(near[:5])}" if near else ""
            raise RunError(f"{path}: not a run folder (no config.yaml){hint}")
        return cls(path)

    def create(self, config: dict[str, Any], command: list[str], resume: bool) -> None:
        """Write down what is about to be run, or check that it is what was run before.

        Raises:
            RunError: the folder holds a run and `resume` is not set, or holds a run of another config
        """
        stored = self.path / "config.yaml"
        if stored.is_file():
            if not resume:
                raise RunError(f"{self.path}: holds a run already; continue it with --resume or give another name=NAME")
            before, now = placeless(_read_config(stored)), placeless(config)
            if before != now:
                key, old, new = next(differences(before, now))
                raise RunError(
                    f"{self.path}: made with another config ({key} was {old!r}, now {new!r}); give another name=NAME"
                )
        self._made()
        write_whole(stored, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        if not (self.path / "environment.json").is_file():
            write_whole(self.path / "environment.json", json.dumps(environment(command), indent=2))

    def _made(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be made ({error.strerror}); give another folder with runs=DIR"
            ) from None

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, of the shape that a run has; values are not checked.

        Raises:
            RunError: it cannot be read, or is no config of a run
        """
        path = self.path / "config.yaml"
        content = _read_config(path)
        if (wrong := next(_misshapen(content), None)) is not None:
            raise RunError(f"{path}: {wrong}; {RESTORE}")
        return content

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for writing, made if it is missing. The lock belongs to the process, so it cannot outlive it.

        Raises:
            RunError: another process writes this run, or the folder cannot be made
        """
        self._made()
        try:
            handle = os.open(self.path / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror}); give another folder with runs=DIR"
            ) from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(handle, 64, 0).decode() or "unknown"
                raise RunError(
                    f"{self.path}: process {owner} is writing this run; wait for it or give another name=NAME"
                ) from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            sweep_up(self.path)
            yield
        finally:
            os.close(handle)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RunError(f"{path}: cannot be read ({error}); {RESTORE}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: not the config of a run, found {type(content).__name__}; {RESTORE}")
    try:
        refuse_endless(content, path)
    except ConfigError as error:
        raise RunError(f"{error}; {RESTORE}") from None
    return content


def _misshapen(config: dict[str, Any]) -> Iterator[str]:
    """What a run's config has in the place of something else, in words."""
    if "name" not in config:
        yield "has no name"
    named = ((key, _under(config, key), kind) for key, kind in SHAPE.items())
    for key, value, kind in chain([("name", config.get("name", ""), TEXT)], named, _objects(config)):
        fits = isinstance(value, _KINDS[kind]) and not (kind is NUMBER and isinstance(value, bool))
        if not fits and (value is not None or key == "name"):
            yield f"{key} is {repr(value)[:80]}, expected {kind}"


def _under(node: Any, key: str) -> Any:
    """The value under a dotted key; None where there is none."""
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _objects(node: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Key, value and kind of every `class_path` and `init_args`, however deep."""
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in inside:
        key = f"{path}.{name}" if path else str(name)
        if name in ("class_path", "init_args"):
            yield key, value, TEXT if name == "class_path" else SECTION
        yield from _objects(value, key)


def placeless(config: dict[str, Any]) -> dict[str, Any]:
    """A config without the folder of run folders: a run that was moved is the same run."""
    return {key: value for key, value in config.items() if key != "runs"}


def differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys at which two trees differ, with both values."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif before != after:
        yield path, before, after


def fingerprint(tree: Any) -> str:
    """A short name for a config tree that changes when anything in it does."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:16]


def environment(command: list[str]) -> dict[str, Any]:
    """What would be needed to repeat a run."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["cpu"]
    return {
        "command": command,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": _commit(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "devices": devices,
        "versions": versions,
    }


def _commit() -> str:
    try:
        where = Path(__file__).resolve().parents[2]
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=where, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return said.stdout.strip() or "unknown"
