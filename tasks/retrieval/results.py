"""What a retrieval run folder holds at this moment, finished or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.experiment.state import RunState, described, table, unit_tables
from tasks.retrieval.metrics import PER_QUERY

RANKING = ("arm", "score", "gallery_name", "direction")
"""What names one ranking: who ranked, by what, whom, in which direction."""


@dataclass(frozen=True)
class Results(RunState):
    """Everything that is known about a run.

    Attributes:
        queries: arm, fold, seed, gallery_name, direction, score, query and the columns of `metrics.per_query`
        epochs: arm, fold, seed, epoch, train_loss, validation_mrr
        spaces: arm, fold, seed, attribute, query and the columns of `metrics.per_query`; empty without spaces
        probes: arm, fold, seed and the columns of `attributes.entanglement`
        summary: rows of `evaluation.summary_of`; None when the run was not evaluated yet
        comparisons: rows of paired differences; None when the run was not evaluated yet
    """

    queries: pd.DataFrame
    epochs: pd.DataFrame
    spaces: pd.DataFrame
    probes: pd.DataFrame
    summary: pd.DataFrame | None
    comparisons: pd.DataFrame | None

    @property
    def own(self) -> str:
        """The arm this run is about."""
        return str(self.config["name"])


def read(run: Path) -> Results:
    """Read a run folder.

    Raises:
        RunError: there is no run at this path
    """
    return Results(
        **described(run),
        queries=unit_tables(
            run, "queries.csv", ["gallery_name", "direction", "score", "query", *PER_QUERY], dtype={"query": str}
        ),
        epochs=unit_tables(run, "epochs.csv", ["epoch"]),
        spaces=unit_tables(run, "spaces.csv", ["attribute", "query", *PER_QUERY], dtype={"query": str}),
        probes=unit_tables(run, "probes.csv", ["space", "attribute", "accuracy", "majority", "n"]),
        summary=table(run / "summary.csv", (*RANKING, "metric", "value")),
        comparisons=table(run / "comparisons.csv", ("a", "b", "sentence")),
    )
