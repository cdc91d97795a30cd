"""Runs that follow no layout: NIfTI with events and mask, one long NIfTI with labels per volume, a table of runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from data.brain.clean import Cleaning
from data.brain.events import checked_events, read_events, read_volume_labels, stretches
from data.brain.images import header_tr, open_bold, repetition_time
from data.brain.recordings import CLEANING, RecordedBrains, Recording
from data.brain.units import Hrf, Unit
from data.cohort.read import read_header, read_table
from data.errors import DataError
from data.sources import resolve


class NiftiBrains(RecordedBrains):
    """One subject from NIfTI files.

    Args:
        bold: 4-D NIfTI, one per run
        lag: seconds from a labelled onset to the response that is decoded; see `evoked`
        events: events.tsv, one per run
        labels: instead of events, a text file with a label and a run for each volume of a single `bold`, as nilearn's
            and PyMVPA's Haxby data have; each stretch of one label is an event
        mask: in the space of the runs; None = computed by nilearn
        confounds: tables of confounds, one per run, used when `cleaning.confounds` asks for them
        subject: its label
        label, stimulus: columns of the events: the class, and what exactly was shown
        unit, mask_above, truth, leave_out, cleaning, hrf, tr: see `RecordedBrains`
        name: what reports call the data
    """

    def __init__(
        self,
        bold: list[str],
        lag: float,
        events: list[str] | None = None,
        labels: str | None = None,
        mask: str | None = None,
        confounds: list[str] | None = None,
        subject: str = "01",
        label: str = "trial_type",
        stimulus: str | None = None,
        unit: Unit = "blocks",
        mask_above: float = 0.0,
        truth: Literal["label", "stimulus"] = "label",
        leave_out: Sequence[str] = ("rest",),
        cleaning: Cleaning = CLEANING,
        hrf: Hrf = "glover",
        tr: float | None = None,
        name: str = "nifti",
    ):
        super().__init__(lag, unit, mask, mask_above, None, truth, leave_out, cleaning, hrf, tr, name)
        if (events is None) == (labels is None):
            raise ValueError("give events (one per run) or labels (of each volume), one of the two")
        if labels is not None and len(bold) != 1:
            raise ValueError(f"labels: of the volumes of one bold file, found {len(bold)}; give events instead")
        for what, given in (("events", events), ("confounds", confounds)):
            if given is not None and len(given) != len(bold):
                raise ValueError(f"{what}: {len(given)} files for {len(bold)} runs; give one per run")
        self.bold, self.events, self.labels, self.confounds = bold, events, labels, confounds
        self.subject, self.label, self.stimulus = subject.removeprefix("sub-"), label, stimulus

    def mask_file(self, subject: str) -> Path | None:
        return None if self.mask is None else resolve(self.mask)

    def recordings(self, account: list[str]) -> list[Recording]:
        if self.labels is not None:
            return self._parts(resolve(self.bold[0]), resolve(self.labels))
        assert self.events is not None
        found = []
        for k, (bold, events) in enumerate(zip(self.bold, map(resolve, self.events), strict=True)):
            found.append(
                Recording(
                    self.subject,
                    f"run-{k + 1}",
                    resolve(bold),
                    partial(read_events, events, self.label, self.stimulus),
                    events,
                    confounds=None if self.confounds is None else resolve(self.confounds[k]),
                )
            )
        return found

    def _parts(self, bold: Path, labels: Path) -> list[Recording]:
        """The runs of one long file, each a stretch of volumes."""
        table, image = read_volume_labels(labels), open_bold(bold)
        if len(table) != image.shape[3]:
            raise DataError(f"{labels}: {len(table)} labels for the {image.shape[3]} volumes of {bold}; give one each")
        tr = repetition_time(bold, None if self.tr is not None else header_tr(image, bold), None, self.tr)
        runs = stretches(table["run"], 1.0)
        if runs["label"].duplicated().any():
            again = runs["label"][runs["label"].duplicated()].iloc[0]
            raise DataError(
                f"{labels}: run {again} comes back after another run; the volumes of a run must be neighbours"
            )
        found = []
        for name, begin, length in zip(runs["label"], runs["onset"], runs["duration"], strict=True):
            frames = (int(begin), int(begin + length))
            events = stretches(table["label"].iloc[slice(*frames)], tr)
            found.append(
                Recording(
                    self.subject,
                    f"run-{name}",
                    bold,
                    partial(checked_events, events, labels),
                    labels,
                    confounds=None if self.confounds is None else resolve(self.confounds[0]),
                    frames=frames,
                )
            )
        return found


class RunTableBrains(RecordedBrains):
    """Any number of subjects from a table with a row per run.

    Args:
        table: CSV or TSV with columns subject, run, bold, events, and where there are any mask, confounds and tr (s);
            paths are relative to the table's folder
        lag: seconds from a labelled onset to the response that is decoded; see `evoked`
        label, stimulus: columns of the events: the class, and what exactly was shown
        mask, unit, mask_above, subjects, truth, leave_out, cleaning, hrf, tr: see `RecordedBrains`
        name: what reports call the data; default: the table's name
    """

    def __init__(
        self,
        table: str,
        lag: float,
        label: str = "trial_type",
        stimulus: str | None = None,
        mask: str | None = None,
        unit: Unit = "blocks",
        mask_above: float = 0.0,
        subjects: list[str] | None = None,
        truth: Literal["label", "stimulus"] = "label",
        leave_out: Sequence[str] = ("rest",),
        cleaning: Cleaning = CLEANING,
        hrf: Hrf = "glover",
        tr: float | None = None,
        name: str | None = None,
    ):
        super().__init__(
            lag, unit, mask, mask_above, subjects, truth, leave_out, cleaning, hrf, tr, name or Path(table).stem
        )
        self.table, self.label, self.stimulus = table, label, stimulus

    def mask_file(self, subject: str) -> Path | None:
        return None if self.mask is None else resolve(self.mask)

    def recordings(self, account: list[str]) -> list[Recording]:
        path = resolve(self.table)
        header = read_header(path)
        needed = ("subject", "run", "bold", "events")
        missing = [column for column in needed if column not in header]
        if missing:
            raise DataError(f"{path}: no column {missing[0]}; a run table has {', '.join(needed)}, mask, confounds, tr")
        optional = [column for column in ("mask", "confounds") if column in header]
        rows = read_table(path, [*needed, *optional], {"tr": float} if "tr" in header else {})
        if rows[list(needed)].isna().any(axis=None):
            raise DataError(f"{path}: an empty cell in {', '.join(needed)}; fill it, or remove the run")
        return [self._recording(path.parent, row) for _, row in rows.iterrows()]

    def _recording(self, folder: Path, row: pd.Series) -> Recording:
        events = folder / row["events"]
        return Recording(
            str(row["subject"]).removeprefix("sub-"),
            str(row["run"]),
            folder / row["bold"],
            partial(read_events, events, self.label, self.stimulus),
            events,
            mask=folder / row["mask"] if isinstance(row.get("mask"), str) else None,
            sidecar_tr=float(row["tr"]) if pd.notna(row.get("tr")) else None,
            confounds=folder / row["confounds"] if isinstance(row.get("confounds"), str) else None,
        )
