"""What every report of a run says, whatever the task: is it complete, what failed, where it ran, how to repeat it."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from tasks.experiment.report.numbers import count
from tasks.experiment.report.parts import Facts, Failures, Listing, Prose, Section
from tasks.experiment.state import RunState


def context(state: RunState, task: str) -> str:
    """`survival · blca · 2026-11-22`, the line above the title."""
    day = str(state.environment.get("started", ""))[:10]
    return " · ".join(filter(None, [task, state.path.resolve().name, day]))


def notice(state: RunState, evaluated: bool) -> str:
    """That the run is not complete and what is missing; empty when nothing is.

    Args:
        state: of the run
        evaluated: whether its units were measured
    """
    if not (state.failures or state.open) and state.done and evaluated:
        return ""
    total = len(state.done) + len(state.failures) + len(state.open)
    words = [f"{len(state.done)} of {count(total, 'unit')} done"]
    if state.failures:
        words.append(f"{len(state.failures)} failed")
    if state.open:
        more = ", …" if len(state.open) > 3 else ""
        words.append(f"{len(state.open)} not finished ({', '.join(state.open[:3])}{more})")
    if not evaluated:
        words.append("not evaluated")
    return f"This run is not complete: {'; '.join(words)}. Everything below rests on what is finished."


def closing_sections(state: RunState, task: str) -> list[Section]:
    """Failures, environment with the resolved config, and the command that repeats the run."""
    facts = {name: value for name, value in state.environment.items() if name != "command"}
    config = yaml.safe_dump(state.config, sort_keys=False, allow_unicode=True)
    resolved = Listing(config, "The resolved configuration, every default included")
    command = state.environment.get("command")
    if command:
        again = shlex.join([Path(command[0]).name, *command[1:]])
    else:
        again = f"{task} train -c {state.path / 'config.yaml'}"
    return [
        Section("Failures", [Failures(state.failures)]),
        Section("Environment", [Facts(facts), resolved]),
        Section("Repeat", [Prose(["This command makes this run again."]), Listing(again)]),
    ]
