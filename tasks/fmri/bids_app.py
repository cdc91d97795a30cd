"""`fmri BIDS OUT participant`: decode each participant of a BIDS dataset, or all of them together, into derivatives."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from data.brain.layouts import participants
from data.brain.people import same_label
from tasks.experiment.console import BAD_INPUT, DONE, SOME_FAILED, say
from tasks.experiment.folder import RunError
from tasks.fmri.derivatives import describe
from tasks.fmri.train import TASK

CONFIG = {"participant": "_base/fmri_bids", "group": "_base/fmri_bids_group"}
WORK = "runs"
"""Folder within OUT that holds the run folders; a `.bidsignore` hides it from validators."""


def run_bids_app(
    bids: Path,
    out: Path,
    level: str,
    labels: Sequence[str],
    lag: float,
    files: Sequence[str],
    overrides: Sequence[str] = (),
    jobs: int = 1,
    resume: bool = False,
) -> int:
    """Decode a dataset.

    `participant` gives every participant a run of its own, so one that cannot be read does not stop the others; `group`
    is one run of all of them. OUT then holds dataset_description.json, sub-01/func/*, and sub-01.html or group.html.

    Args:
        bids: the dataset, or derivatives of one
        out: the derivatives dataset
        level: participant or group
        labels: participants, without sub-; none = all
        lag: seconds from a labelled onset to the response that is decoded
        files: configs to start from, whose `brains` must be a `BidsBrains`; none = the one of the level
        overrides: KEY=VALUE
        jobs: processes
        resume: go on with an interrupted call

    Returns:
        exit code: 1 when some participants failed, 2 when none could be decoded

    Raises:
        RunError: not a folder, no participant in it, or OUT is a data set that was not made here
    """
    if not bids.is_dir():
        raise RunError(f"{bids}: no such folder; give a BIDS dataset")
    if out.resolve() == bids.resolve():
        raise RunError(f"{out}: results would go among the raw data; give an output folder of its own")
    chosen = [label.removeprefix("sub-") for label in labels] or _present(bids)
    if repeated := sorted({label for label in chosen if chosen.count(label) > 1}):
        raise RunError(f"--participant-label {repeated[0]} is given more than once; name each participant once")
    again = same_label(chosen)
    for label, first in again.items():
        say(
            f"sub-{label} left out: sub-{first} has the same label but for zeros or case, so one person may count as "
            "two; rename one of them, or name one with --participant-label",
            TASK.name,
        )
    chosen = [label for label in chosen if label not in again]
    describe(out, f"Decoding of {bids.resolve().name}", str(bids.resolve()))
    (out / ".bidsignore").write_text(f"{WORK}/\n*.html\n")
    given = [f"brains.folder={bids.resolve()}", f"brains.lag={lag}", f"runs={(out / WORK).resolve()}", *overrides]
    files = files or [CONFIG[level]]
    groups = {f"sub-{label}": [label] for label in chosen} if level == "participant" else {"group": chosen}
    codes = {name: _decoded(name, of, out, files, given, jobs, resume) for name, of in groups.items()}
    failed = [name for name, code in codes.items() if code == BAD_INPUT]
    if len(failed) == len(codes):
        return BAD_INPUT
    return SOME_FAILED if again or any(code != DONE for code in codes.values()) else DONE


def _decoded(
    name: str, labels: list[str], out: Path, files: Sequence[str], given: list[str], jobs: int, resume: bool
) -> int:
    """One run, its derivatives and its page; bad input is said in one line and ends this run alone."""
    run = out / WORK / TASK.name / name
    subjects = ", ".join(f"'{label}'" for label in labels)
    going_on = resume and (run / "config.yaml").is_file()
    try:
        code = TASK.train(files, [*given, f"brains.subjects=[{subjects}]", f"name={name}"], jobs=jobs, resume=going_on)
    except (ValueError, RunError, OSError) as error:
        say(f"{name}: {' '.join(str(error).split())}", TASK.name)
        return BAD_INPUT
    if not (run / "report.html").is_file():
        return code
    for folder in sorted((run / "derivatives").glob("sub-*")):
        shutil.copytree(folder, out / folder.name, dirs_exist_ok=True)
    for table in sorted((run / "derivatives").glob("*.tsv")):
        for kind in (".tsv", ".json"):
            shutil.copyfile(table.with_suffix(kind), out / f"{name}_{table.stem}{kind}")
    shutil.copyfile(run / "report.html", out / f"{name}.html")
    for page in sorted(run.glob("brain-*.html")):
        shutil.copyfile(page, out / page.name)
    return code


def _present(bids: Path) -> list[str]:
    """Labels of the participants that have a folder, those of participants.tsv first.

    Raises:
        RunError: there is none
    """
    folders = {path.name.removeprefix("sub-") for path in bids.glob("sub-*") if path.is_dir()}
    listed = [label for label in participants(bids) if label in folders]
    found = [*listed, *sorted(folders - set(listed))]
    if not found:
        raise RunError(f"{bids}: no sub-01, sub-02, ... here; give the folder that holds them")
    return found
