"""Look at the installation the way a colleague would: what is there, what is missing, what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Literal, NamedTuple

from data.sources import SOURCES, data_home
from tasks.experiment.names import strangers

MINIMUM = {"torch": "2.11", "lightning": "2.6", "numpy": "2", "pandas": "2.2"}
NEEDED_GB = 5


class Finding(NamedTuple):
    """One line of the examination."""

    state: Literal["PASS", "WARN", "FAIL"]
    what: str
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Everything worth knowing before a long run, the worst things included."""
    return [*_python(), *_versions(), *_names(), *_devices(), *_slides(), *_data(), *_disk()]


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
        new_enough = _numbers(version) >= _numbers(least)
        yield Finding("PASS" if new_enough else "FAIL", name, version, "" if new_enough else f"needs {least} or newer")


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+")[0].split(".")
    return tuple(int(part) for part in parts[:2] if part.isdigit())


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
    asked = os.environ.get("FUSION_KERNELS", "auto")
    known = asked in ("auto", "triton", "sdpa", "reference")
    remedy = "" if known else "auto, triton, sdpa or reference"
    yield Finding("PASS" if known else "FAIL", "kernels", f"FUSION_KERNELS={asked}", remedy)


def _slides() -> Iterator[Finding]:
    try:
        import openslide
    except (ImportError, OSError) as error:
        yield Finding("FAIL", "openslide", str(error).splitlines()[0], "pip install openslide-bin")
    else:
        yield Finding("PASS", "openslide", openslide.__library_version__)


def _data() -> Iterator[Finding]:
    for source in SOURCES:
        if source.folder.is_dir():
            yield Finding("PASS", f"data {source.name}", str(source.folder))
        else:
            how = f"fusion data import {source.name} --from FOLDER"
            yield Finding("WARN", f"data {source.name}", f"not in {data_home()}", how)


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(".").free / 1e9
    enough = free >= NEEDED_GB
    yield Finding(
        "PASS" if enough else "WARN", "disk", f"{free:.0f} GB free", "" if enough else "checkpoints need room"
    )
