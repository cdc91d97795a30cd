"""What a melody run folder holds at this moment, finished or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.experiment.inventory import said_of
from tasks.experiment.state import RunState, described, finished_units, table, unit_tables
from tasks.melody.model import MEASURED


@dataclass(frozen=True)
class Results(RunState):
    """Everything that is known about a run.

    Attributes:
        measured: arm, fold, seed and the columns of `tasks.melody.model.Measurement`
        epochs: arm, fold, seed, epoch, train_loss, valid
        summary: likelihoods, rows of `evaluation.likelihoods`; None when the run was not evaluated yet
        comparisons: rows of paired differences; None likewise
        generation: what generated songs have in common with real ones, rows of `generation.table`; None likewise, or
            when nothing was generated
        binding: arm, fold, seed, rule, choices, overruled, removed: how often each rule of the grammar bound a choice
    """

    measured: pd.DataFrame
    epochs: pd.DataFrame
    summary: pd.DataFrame | None
    comparisons: pd.DataFrame | None
    generation: pd.DataFrame | None
    binding: pd.DataFrame

    @property
    def own(self) -> str:
        """The arm this run is about."""
        return str(self.config["name"])

    @property
    def promises(self) -> dict[str, dict[str, int]]:
        """Per arm that generated under the grammar: songs, notes and broken promises, over its finished units."""
        found: dict[str, dict[str, int]] = {}
        for unit in finished_units(self.path):
            facts = said_of(unit).get("generated")
            if facts is not None and (unit / "rules.csv").is_file() and facts["promised"]:
                own = found.setdefault(unit.parent.name, {"songs": 0, "notes": 0, "broken": 0})
                for name in own:
                    own[name] += int(facts[name])
        return found

    @property
    def arms(self) -> list[str]:
        """The arms with a finished unit, in the order of the config."""
        there = set(self.measured["arm"])
        return [arm for arm in configured_arms(self.config) if arm in there]


def configured_arms(config: dict[str, object]) -> list[str]:
    """The model under test, rivals, then baselines, as the config lists them."""
    others = [name for kind in ("rivals", "baselines") for name in (config.get(kind) or {})]  # type: ignore[attr-defined]
    return [str(config["name"]), *others]


def read(run: Path) -> Results:
    """Read a run folder.

    Raises:
        RunError: there is no run at this path
    """
    return Results(
        **described(run),
        measured=unit_tables(run, "nll.csv", MEASURED, dtype={"case": str, "part": str}),
        epochs=unit_tables(run, "epochs.csv", ["epoch", "train_loss", "valid"]),
        summary=table(run / "summary.csv", ("split", "part", "arm", "value")),
        comparisons=table(run / "comparisons.csv", ("a", "b", "part", "sentence")),
        generation=table(run / "generation.csv"),
        binding=unit_tables(run, "rules.csv", ["rule", "choices", "overruled", "removed"]),
    )
