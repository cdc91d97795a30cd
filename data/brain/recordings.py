"""Runs as files, whatever the layout: read, masked, cleaned and cut into samples, one subject after the other."""

from __future__ import annotations

import copy
import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from data.brain.brain import Brain, Brains, BrainSource, VoxelSpace, sample_table
from data.brain.clean import Cleaning, confounds_of, read_confounds
from data.brain.events import UNLABELLED, check_within, without
from data.brain.evoked import EvokedResponse, evoked_response
from data.brain.images import (
    brain_mask,
    check_same_space,
    header_tr,
    masked,
    open_bold,
    read_mask,
    repetition_time,
    without_a_number,
)
from data.brain.people import one_each
from data.brain.units import Hrf, Run, Samples, Unit, samples_of
from data.errors import DataError

CLEANING = Cleaning()


@dataclass(frozen=True)
class Recording:
    """Where the files of one run are.

    Attributes:
        subject, run: labels
        bold: 4-D NIfTI
        events: read when needed, so that one broken table stops one subject
        events_file: for messages
        mask: the mask of this run; None = that of the source, or a computed one
        sidecar_tr: RepetitionTime of its sidecar, s
        confounds: table of confounds
        start: s at which the first volume counts as taken
        frames: first and end volume within the file; None = all
    """

    subject: str
    run: str
    bold: Path
    events: Callable[[], pd.DataFrame]
    events_file: Path
    mask: Path | None = None
    sidecar_tr: float | None = None
    confounds: Path | None = None
    start: float = 0.0
    frames: tuple[int, int] | None = None


class RecordedBrains(BrainSource):
    """What all sources that read scans have in common.

    Args:
        lag: seconds from a labelled onset to the response that is decoded; there is no default, as files differ: some
            hold the times of presentation, some are shifted already (`evoked` shows which)
        unit: volumes, blocks (their mean per event) or trials (a beta per event)
        mask: NIfTI mask in the space of the runs; None = the one beside each run, else one computed by nilearn
        mask_above: voxels above this value are inside
        subjects: labels to read; None = all
        truth: `label` to classify, `stimulus` to retrieve what exactly was shown
        leave_out: labels of events that are not decoded, such as rest
        cleaning: of every run
        hrf: response function of unit trials
        tr: seconds between volumes, instead of header and sidecar
        name: what reports call the data
    """

    def __init__(
        self,
        lag: float,
        unit: Unit = "blocks",
        mask: str | None = None,
        mask_above: float = 0.0,
        subjects: list[str] | None = None,
        truth: Literal["label", "stimulus"] = "label",
        leave_out: Sequence[str] = ("rest",),
        cleaning: Cleaning = CLEANING,
        hrf: Hrf = "glover",
        tr: float | None = None,
        name: str = "brains",
    ):
        if unit not in ("volumes", "blocks", "trials"):
            raise ValueError(f"unit: expected volumes, blocks or trials, found {unit!r}")
        if hrf not in ("glover", "spm"):
            raise ValueError(f"hrf: expected glover or spm, found {hrf!r}")
        if subjects is not None and len(set(subjects)) < len(subjects):
            twice = next(s for s in subjects if subjects.count(s) > 1)
            raise DataError(f"subjects: {twice} is listed more than once; list each subject once")
        if tr is not None and not tr > 0:
            raise ValueError(f"tr: expected seconds between volumes, found {tr:g}")
        self.lag, self.unit, self.mask, self.mask_above = float(lag), unit, mask, mask_above
        self.subjects, self.truth, self.leave_out = subjects, truth, tuple(leave_out)
        self.cleaning, self.hrf, self.tr, self.name = cleaning, hrf, tr, name

    @abstractmethod
    def recordings(self, account: list[str]) -> list[Recording]:
        """The runs there are; what is left out is told to the account."""

    @abstractmethod
    def mask_file(self, subject: str) -> Path | None:
        """The mask of a subject; None = each run has its own, or one is computed."""

    def at_lag(self, lag: float) -> RecordedBrains:
        """The same files with another lag, for a sweep."""
        other = copy.copy(self)
        other.lag, other._brains = float(lag), None
        return other

    def read(self) -> Brains:
        account: list[str] = []
        parts: dict[str, Brain] = {}
        problems: list[DataError] = []
        by_subject = self._by_subject(account)
        for subject, recordings in by_subject.items():
            try:
                parts[subject] = self._brain(subject, recordings, account)
            except DataError as problem:
                problems.append(problem)
                account.append(f"subject {subject} left out: {problem}")
        if not parts:
            raise problems[0]
        parts = one_each(parts, account)
        candidates = sorted({str(value) for brain in parts.values() for value in brain.table[self.truth]})
        return Brains(self.name, parts, account, candidates, self.truth)

    def evoked(self) -> list[EvokedResponse]:
        """The class-blind response of every subject that can be read."""
        responses = []
        for subject in self.load().subjects:
            recordings = self._by_subject([])[subject]
            runs = list(self._runs(recordings, self._mask(subject, recordings), Counter()))
            responses.append(evoked_response(runs, self.cleaning, self.lag, self.unit))
        return responses

    def _by_subject(self, account: list[str]) -> dict[str, list[Recording]]:
        found: dict[str, list[Recording]] = {}
        for recording in self.recordings(account):
            found.setdefault(recording.subject, []).append(recording)
        if self.subjects is None:
            return found
        strange = [s for s in self.subjects if s not in found]
        if strange:
            raise DataError(f"{self.name}: no subject {strange[0]}; there are {', '.join(found) or 'none'}")
        return {subject: found[subject] for subject in self.subjects}

    def _brain(self, subject: str, recordings: list[Recording], account: list[str]) -> Brain:
        names = [recording.run for recording in recordings]
        twice = sorted({run for run in names if names.count(run) > 1})
        if twice:
            raise DataError(
                f"subject {subject}: run {twice[0]} occurs more than once; label subjects and runs uniquely"
            )
        space = self._mask(subject, recordings)
        skipped: Counter[str] = Counter()
        known: dict[bytes, str] = {}
        samples: list[Samples] = []
        rows: list[pd.DataFrame] = []
        for run in self._runs(recordings, space, skipped):
            content = hashlib.sha256(run.series.tobytes()).digest()
            if content in known:
                raise DataError(
                    f"{run.path}: the same volumes as {known[content]}; one of them would be trained on while the "
                    "other is scored. Remove the copy"
                )
            known[content] = run.name
            part = samples_of(run, self.unit, self.lag, self.cleaning, self.hrf, skipped)
            samples.append(part)
            rows.append(part.events.assign(run=run.name))
        usable = np.logical_and.reduce([part.usable for part in samples])
        if not usable.any():
            raise DataError(f"subject {subject}: every voxel is NaN or constant in some run; check mask and images")
        table = pd.concat(rows, ignore_index=True)
        inside = space.mask.copy()
        inside[space.mask] = usable
        if self.mask_file(subject) is None and any(recording.mask is None for recording in recordings):
            account.append(f"subject {subject}: no mask beside its runs; one was computed from them by nilearn")
        account.append(
            f"subject {subject}: {len(table)} {self.unit} of {table[self.truth].nunique()} {_plural(self.truth)} in "
            f"{len(samples)} runs, {int(usable.sum())} voxels, lag {self.lag:g} s"
        )
        gone = int((~usable).sum())
        if gone:
            account.append(f"subject {subject}: {gone} voxels that are NaN or constant in some run, dropped")
        account += [f"subject {subject}: {number} {what}" for what, number in skipped.items() if number]
        return Brain(
            subject,
            np.concatenate([part.x for part in samples])[:, usable].astype(np.float32, copy=False),
            sample_table(subject, table["run"], table["onset"], table["label"], table["stimulus"]),
            replace(space, mask=inside),
        )

    def _mask(self, subject: str, recordings: list[Recording]) -> VoxelSpace:
        """Voxels inside the source's mask, or inside the masks of all runs, or inside one computed mask."""
        common = self.mask_file(subject)
        if common is not None:
            return read_mask(common, self.mask_above)
        own = [recording.mask for recording in recordings if recording.mask is not None]
        if len(own) < len(recordings):
            return brain_mask([recording.bold for recording in recordings])
        first, *others = (read_mask(path, self.mask_above) for path in dict.fromkeys(own))
        inside = first.mask.copy()
        for path, other in zip(list(dict.fromkeys(own))[1:], others, strict=True):
            if other.mask.shape != first.mask.shape or not np.allclose(other.affine, first.affine, atol=1e-2):
                raise DataError(f"{path}: another space than {own[0]}; give runs of one space (space: ...)")
            inside &= other.mask
        if not inside.any():
            raise DataError(f"subject {subject}: the masks of its runs have no voxel in common; give mask")
        return VoxelSpace(inside, first.affine)

    def _runs(self, recordings: list[Recording], space: VoxelSpace, skipped: Counter[str]) -> Iterator[Run]:
        for recording in recordings:
            image = open_bold(recording.bold)
            mask = self.mask_file(recording.subject) or recording.mask or recording.bold
            check_same_space(image, recording.bold, space, str(mask))
            header = None if self.tr is not None else header_tr(image, recording.bold)
            tr = repetition_time(recording.bold, header, recording.sidecar_tr, self.tr)
            series = masked(image, recording.bold, space.mask, self.cleaning.smooth)
            if self.mask_file(recording.subject) is None and recording.mask is None:
                lost = "voxels without a number, which the computed mask leaves out"
                skipped[lost] = max(skipped[lost], without_a_number(image, ~space.mask))
            if recording.frames is not None:
                series = series[slice(*recording.frames)]
            ignored = (*self.leave_out, UNLABELLED)
            events, out = without(recording.events(), ignored, recording.events_file)
            skipped[f"events of {' or '.join(ignored)}, left out"] += out
            check_within(events, len(series), tr, recording.events_file)
            confounds = self._confounds(recording, len(series))
            first = self.cleaning.dummies
            if first > len(series) - 2:
                raise DataError(f"{recording.bold}: {len(series)} volumes; cleaning.dummies={first} leaves no series")
            yield Run(
                recording.subject,
                recording.run,
                recording.bold,
                series[first:],
                tr,
                recording.start + first * tr,
                events,
                None if confounds is None else confounds[first:],
            )

    def _confounds(self, recording: Recording, frames: int) -> Any:
        if not self.cleaning.confounds:
            return None
        if recording.confounds is None:
            raise DataError(
                f"{recording.bold}: no confounds beside it; leave cleaning.confounds empty, or add the file"
            )
        table = read_confounds(recording.confounds)
        if recording.frames is not None:
            table = table.iloc[slice(*recording.frames)].reset_index(drop=True)
        return confounds_of(table, self.cleaning.confounds, frames, recording.confounds)[0]


def _plural(truth: str) -> str:
    return "classes" if truth == "label" else "stimuli"
