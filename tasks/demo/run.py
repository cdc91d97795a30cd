"""Run the parts of the demo one after another, whatever becomes of each, and write the page of all."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from pathlib import Path

from tasks.demo import gallery as pictures
from tasks.demo.page import NAME, Ended, compose
from tasks.demo.parts import PARTS, Part
from tasks.experiment.console import DONE, SOME_FAILED, print_table, progress, say
from tasks.experiment.report import Failure
from tasks.experiment.task import task_named

JOBS = 2


def demo(runs: Path, parts: Sequence[Part] = PARTS, gallery: Path | None = None) -> int:
    """Run every part and write one page.

    Args:
        runs: where run folders go; a finished part is only read again, an interrupted one goes on
        parts: in reading order
        gallery: folder that gets a page of small pictures of a demo without failure; None = it is not written

    Returns:
        exit code: 1 when a part, or a unit of one, failed
    """
    ended = []
    for number, part in enumerate(parts, start=1):
        progress(f"part {number} of {len(parts)}: {part.title}")
        ended.append(_ended(part, runs))
    page = compose(ended).write(runs / NAME)
    told = [(one.part.task, verdict) for one in ended for verdict in one.verdicts]
    print_table([{"part": task} | verdict.row for task, verdict in told])
    for task, verdict in told:
        print(f"{task}: {verdict.sentence}")
    for one in ended:
        if one.failure is not None:
            say(f"{one.failure.unit}: {one.failure.reason}", "demo")
    failed = any(one.failure is not None for one in ended)
    if gallery is not None and not failed:
        print(f"gallery: {pictures.write(ended, gallery)}")
    print(f"report: {page}")
    return SOME_FAILED if failed else DONE


def _ended(part: Part, runs: Path) -> Ended:
    """One part, run or gone on with; its failure is told, not raised."""
    run, failure = part.run(runs), None
    try:
        jobs = min(JOBS, os.cpu_count() or 1)
        code = task_named(part.task).train(
            [part.config], [f"runs={runs}"], jobs=jobs, resume=(run / "config.yaml").exists()
        )
        if code != DONE:
            failure = Failure(part.task, f"not every unit finished; see {run / 'report.html'}")
    except Exception as error:  # the other parts go on, and the page tells
        failure = _failure(part, error)
    try:
        page, verdicts = part.page(run), part.verdicts(run)
    except Exception as error:
        return Ended(part, run, failure=failure or _failure(part, error))
    return Ended(part, run, page, verdicts, failure)


def _failure(part: Part, error: Exception) -> Failure:
    said = " ".join(str(error).split()) or type(error).__name__
    return Failure(part.task, said, "".join(traceback.format_exception(error)))
