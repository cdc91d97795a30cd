"""BIDS and fMRIPrep derivatives: runs, events, masks, confounds and sidecars found by their names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from data.brain.clean import Cleaning
from data.brain.events import read_events
from data.brain.images import SURFACES
from data.brain.layouts import BidsFile, functional, inherited, participants, seconds_of, sidecar
from data.brain.order import natural
from data.brain.recordings import CLEANING, RecordedBrains, Recording
from data.brain.units import Hrf, Unit
from data.errors import DataError
from data.sources import resolve


class BidsBrains(RecordedBrains):
    """Brains from a BIDS folder, raw or preprocessed.

    Events and RepetitionTime follow the inheritance rule, so a task-wide `task-x_bold.json` counts. Of derivatives the
    `desc-preproc` images, brain masks and confounds are used; events come from the raw folder, or stand beside them.

    Args:
        folder: of the raw data set (sub-01, ...); a path, or a place in an imported data set
        lag: seconds from a labelled onset to the response that is decoded; see `evoked`
        task: needed when there are several
        derivatives: folder of preprocessed runs, within `folder` (derivatives/fmriprep) or a path; None = raw runs
        space: of the derivatives, such as T1w or MNI152NLin2009cAsym:res-2; needed when there are several
        mask: a path, or a place within `folder`; None = the brain mask beside each run, else one computed by nilearn
        label: column of the events that holds the class
        stimulus: column of the events that says what exactly was shown; None = the class
        unit, mask_above, subjects, truth, leave_out, cleaning, hrf, tr: see `RecordedBrains`
        name: what reports call the data; default: the folder's name
    """

    def __init__(
        self,
        folder: str,
        lag: float,
        task: str | None = None,
        derivatives: str | None = None,
        space: str | None = None,
        mask: str | None = None,
        label: str = "trial_type",
        stimulus: str | None = None,
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
        labels = None if subjects is None else [str(subject).removeprefix("sub-") for subject in subjects]
        super().__init__(
            lag, unit, mask, mask_above, labels, truth, leave_out, cleaning, hrf, tr, name or Path(folder).name
        )
        self.folder, self.task, self.derivatives, self.space = folder, task, derivatives, space
        self.label, self.stimulus = label, stimulus

    def mask_file(self, subject: str) -> Path | None:
        if self.mask is None:
            return None
        inside = resolve(self.folder) / self.mask
        return inside if inside.is_file() else resolve(self.mask)

    def recordings(self, account: list[str]) -> list[Recording]:
        root = resolve(self.folder)
        images = self._images(root)
        listed = participants(root)
        found: list[Recording] = []
        lacking: dict[str, int] = {}
        broken: dict[str, DataError] = {}
        for image in images:
            subject = image.entities["sub"]
            try:
                recording = self._recording(root, image)
            except DataError as problem:
                broken.setdefault(subject, problem)
                continue
            if recording is None:
                lacking[subject] = lacking.get(subject, 0) + 1
            else:
                found.append(recording)
        found = [recording for recording in found if recording.subject not in broken]
        if broken and not found:
            raise next(iter(broken.values()))
        account += [f"subject {subject} left out: {problem}" for subject, problem in broken.items()]
        account += [f"subject {subject}: {number} runs without events, skipped" for subject, number in lacking.items()]
        seen = {recording.subject for recording in found}
        unseen = [s for s in listed if s not in seen and s not in broken]
        account += [f"subject {s}: in participants.tsv, but without runs and events" for s in unseen]
        if not found:
            raise DataError(
                f"{root}: no events.tsv for any of the {len(images)} runs; give the raw BIDS folder as folder and the "
                "preprocessed one as derivatives"
            )
        return found

    def _images(self, root: Path) -> list[BidsFile]:
        """The runs of the one task, in the one space, in order of subject and run."""
        where = root if self.derivatives is None else self._derivatives(root)
        images = [file for e in (".nii.gz", ".nii") for file in functional(where, "bold", e)]
        images = [file for file in images if file.entities.get("part", "mag") == "mag" and "sub" in file.entities]
        if any("desc" in file.entities for file in images):
            images = [file for file in images if file.entities.get("desc") == "preproc"]
        if not images and any(functional(where, "bold", e) for e in (".func.gii", ".dtseries.nii")):
            raise DataError(f"{where}: runs on the surface only. {SURFACES}")
        if not images:
            raise DataError(
                f"{where}: no sub-*/func/*_bold.nii.gz here; give the folder that holds sub-01, sub-02, ..."
            )
        task = self._one("task", self.task, sorted({file.entities.get("task", "") for file in images}), where)
        images = [file for file in images if file.entities.get("task", "") == task]
        space = self._one("space", self.space, sorted({file.space for file in images}), where)
        images = [file for file in images if file.space == space]
        echoes = {file.entities["echo"] for file in images if "echo" in file.entities}
        if len(echoes) > 1:
            raise DataError(
                f"{where}: {len(echoes)} echoes of each run; combine them first (fMRIPrep does), or keep one"
            )
        return sorted(images, key=lambda file: (natural(file.entities["sub"]), natural(file.run)))

    def _one(self, what: str, asked: str | None, there: list[str], where: Path) -> str:
        if asked is None and len(there) == 1:
            return there[0]
        if asked in there:
            return str(asked)
        found = ", ".join(there)
        if asked is None:
            raise DataError(f"{where}: runs of {len(there)} {what}s ({found}); say which one ({what}: ...)")
        raise DataError(f"{where}: no run of {what} {asked}; there are {found}")

    def _derivatives(self, root: Path) -> Path:
        inside = root / str(self.derivatives)
        return inside if inside.is_dir() else resolve(str(self.derivatives))

    def _recording(self, root: Path, image: BidsFile) -> Recording | None:
        where = root if self.derivatives is None else self._derivatives(root)
        tables = inherited(root, image, "events", ".tsv") or inherited(where, image, "events", ".tsv")
        if not tables:
            return None
        own, raw = sidecar(where, image), sidecar(root, image)
        tr = seconds_of(own, "RepetitionTime", image.path)
        masks = [f for f in inherited(where, _renamed(image, "brain", "mask"), "mask", image.extension)]
        confounds = [
            *inherited(where, _renamed(image, "confounds", "timeseries"), "timeseries", ".tsv"),
            *inherited(where, _renamed(image, "confounds", "regressors"), "regressors", ".tsv"),
        ]
        return Recording(
            image.entities["sub"],
            image.run,
            image.path,
            partial(read_events, tables[0], self.label, self.stimulus),
            tables[0],
            mask=next((f for f in masks if BidsFile.named(f).space == image.space), None),
            sidecar_tr=tr if tr is not None else seconds_of(raw, "RepetitionTime", image.path),
            confounds=next(iter(confounds), None),
            start=seconds_of(own, "StartTime", image.path) or 0.0,
        )


def _renamed(image: BidsFile, desc: str, suffix: str) -> BidsFile:
    return BidsFile(image.path, {**image.entities, "desc": desc}, suffix, image.extension)
