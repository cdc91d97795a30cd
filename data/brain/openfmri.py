"""The OpenfMRI layout of older data: `sub001/BOLD/task001_run001/bold.nii.gz`, onset files, `scan_key.txt`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from data.brain.clean import Cleaning
from data.brain.events import read_events, read_onsets
from data.brain.order import natural
from data.brain.recordings import CLEANING, RecordedBrains, Recording
from data.brain.units import Hrf, Unit
from data.errors import DataError
from data.sources import resolve
from data.text.reading import read_text


class OpenFmriBrains(RecordedBrains):
    """Brains from an OpenfMRI folder.

    Events come from `<bold>_events.tsv` or the only `*events.tsv` beside a run, else from the onset files of `model`.

    Args:
        folder: that holds sub001, ...; a path, or a place in an imported data set such as fmri/haxby2001
        lag: seconds from a labelled onset to the response that is decoded; see `evoked`
        bold: file name of the runs
        mask: within a subject's folder, within `folder`, or a path; None = one computed by nilearn
        task: number of the task
        model: number of the model whose onset files and condition names are used
        unit, mask_above, subjects, truth, leave_out, cleaning, hrf, tr: see `RecordedBrains`
        confounds: file name of the motion estimates beside a run, used when `cleaning.confounds` asks for them
        name: what reports call the data; default: the folder's name
    """

    def __init__(
        self,
        folder: str,
        lag: float,
        bold: str = "bold.nii.gz",
        mask: str | None = None,
        task: int = 1,
        model: int = 1,
        unit: Unit = "blocks",
        mask_above: float = 0.0,
        subjects: list[str] | None = None,
        truth: Literal["label", "stimulus"] = "label",
        leave_out: Sequence[str] = ("rest",),
        cleaning: Cleaning = CLEANING,
        hrf: Hrf = "glover",
        tr: float | None = None,
        confounds: str = "bold_moest.txt",
        name: str | None = None,
    ):
        super().__init__(
            lag, unit, mask, mask_above, subjects, truth, leave_out, cleaning, hrf, tr, name or Path(folder).name
        )
        self.folder, self.bold, self.task, self.model, self.confounds = folder, bold, task, model, confounds

    def mask_file(self, subject: str) -> Path | None:
        if self.mask is None:
            return None
        root = resolve(self.folder)
        for place in (root / f"sub{subject}" / self.mask, root / self.mask):
            if place.is_file():
                return place
        return resolve(self.mask)

    def recordings(self, account: list[str]) -> list[Recording]:
        root = resolve(self.folder)
        people = sorted(
            (p for p in root.glob("sub*") if re.fullmatch(r"sub\d+", p.name)), key=lambda p: natural(p.name)
        )
        if not people:
            raise DataError(f"{root}: no sub001, sub002, ... here; give the folder that holds them")
        scan_tr, conditions = _scan_tr(root / "scan_key.txt"), self._conditions(root)
        found = []
        for person in people:
            runs = sorted(person.glob(f"BOLD/task{self.task:03d}_run*"), key=lambda p: natural(p.name))
            with_bold = [run for run in runs if (run / self.bold).exists()]
            if len(with_bold) < len(runs):
                account.append(
                    f"subject {person.name[3:]}: {len(runs) - len(with_bold)} runs without {self.bold}, skipped"
                )
            for run in with_bold:
                motion = run / self.confounds
                events, file = _events(run, person, self.model, conditions)
                found.append(
                    Recording(
                        person.name[3:],
                        run.name.split("_")[-1],
                        run / self.bold,
                        events,
                        file,
                        sidecar_tr=scan_tr,
                        confounds=motion if motion.is_file() else None,
                    )
                )
        if not found:
            raise DataError(f"{root}: no BOLD/task{self.task:03d}_run*/{self.bold} of any subject; name bold and task")
        return found

    def _conditions(self, root: Path) -> dict[str, str]:
        """`cond001` -> class, of this task."""
        key = root / "models" / f"model{self.model:03d}" / "condition_key.txt"
        if not key.is_file():
            return {}
        found = {}
        for number, line in enumerate(read_text(key).splitlines(), start=1):
            task, *named = line.split(None, 2) or [""]
            if task == f"task{self.task:03d}":
                if len(named) < 2:
                    raise DataError(f"{key}: line {number} names no condition; expected {task} cond001 NAME")
                found[named[0]] = named[1].strip()
        return found


def _events(run: Path, person: Path, model: int, conditions: dict[str, str]) -> tuple[partial[pd.DataFrame], Path]:
    """What reads the events of a run, and the file or folder it reads."""
    tables = sorted(run.glob("*events.tsv"))
    if tables:
        return partial(read_events, tables[0]), tables[0]
    onsets = person / "model" / f"model{model:03d}" / "onsets" / run.name
    return partial(read_onsets, onsets, conditions), onsets


def _scan_tr(key: Path) -> float | None:
    """The TR line of scan_key.txt."""
    if not key.is_file():
        return None
    said = re.search(r"^TR\s+(\S+)", read_text(key), re.MULTILINE)
    if said is None:
        return None
    try:
        return float(said[1])
    except ValueError:
        raise DataError(f"{key}: TR {said[1]} is not a number of seconds; correct it") from None
