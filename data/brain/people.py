"""Is every subject one person? One label written in two ways, or the same samples under two labels, count one twice."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from data.brain.brain import Brain


def same_label(labels: Iterable[str]) -> dict[str, str]:
    """Labels that say the same as an earlier one but for leading zeros and case (1 and 01) -> that earlier one."""
    first: dict[str, str] = {}
    again = {}
    for label in labels:
        plain = re.sub(r"\d+", lambda number: str(int(number[0])), label.casefold())
        if first.setdefault(plain, label) != label:
            again[label] = first[plain]
    return again


def one_each(subjects: Mapping[str, Brain], account: list[str]) -> dict[str, Brain]:
    """The subjects without those who would count one person twice; the account says who that is, and why.

    Whoever would lie on both sides of a split of subjects, or weigh double in a mean over them, makes every number
    look better than it is.

    Args:
        subjects: by label
        account: added to
    """
    alike = same_label(subjects)
    known: dict[bytes, tuple[str, str]] = {}
    kept = {}
    for label, brain in subjects.items():
        runs = {_content(brain, run): (run, label) for run in brain.runs}
        copied = next((content for content in runs if content in known), None)
        if copied is not None:
            run, first = known[copied]
            account.append(
                f"subject {label} left out: its {_named(runs[copied][0])} holds the same samples as {_named(run)} of "
                f"subject {first}, so one person would count as two; remove the copy"
            )
        elif label in alike:
            account.append(
                f"subject {label} left out: subject {alike[label]} has the same label but for zeros or case, so one "
                "person may count as two; rename one of them, or name one in subjects"
            )
        else:
            known |= runs
            kept[label] = brain
    return kept


def _named(run: str) -> str:
    return run if run.startswith(("run", "ses")) else f"run {run}"


def _content(brain: Brain, run: str) -> bytes:
    return hashlib.sha256(brain.x[(brain.table["run"] == run).to_numpy()].tobytes()).digest()
