"""Survival in the common orchestration: what is run on a cohort, and what is said at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.cohort.cohort import Cohort
from tasks.experiment.console import print_table
from tasks.experiment.folder import RunFolder
from tasks.experiment.same_data import digest
from tasks.experiment.task import Plan, Task
from tasks.survival import unit
from tasks.survival.ceiling import ceiling
from tasks.survival.evaluation import evaluate_run
from tasks.survival.experiment import SurvivalExperiment
from tasks.survival.report import write as write_report
from tasks.survival.trial import TUNING


class Survival(Task):
    """Train every arm of a config on every fold and seed, then measure, compare and report."""

    name = "survival"
    unit = staticmethod(unit.run)
    tuning = TUNING

    def plan(self, experiment: SurvivalExperiment) -> Plan:
        cohort = experiment.cohort.load()
        return Plan(
            account=str(cohort.account),
            data=f"cohort {cohort.name}",
            folds=len(experiment.cohort.splits()),
            arms=experiment.arms,
            seedless=experiment.baselines.keys(),
            absent=experiment.left_out(cohort),
            content=content(cohort),
        )

    def finish(self, experiment: SurvivalExperiment, run: Path, folds: Sequence[int], seeds: Sequence[int]) -> None:
        for fold in folds:
            ceiling(experiment, fold, run / "ceiling" / f"fold{fold}-seed{seeds[0]}")
        results = evaluate_run(run)
        assert results.summary is not None
        over = "mean" if (results.summary["fold"] == "mean").any() else "pooled"
        shown = results.summary[(results.summary["fold"] == over) & (results.summary["metric"] == "c_index")]
        print_table(shown.to_dict("records"), ["arm", "value", "low", "high", "n", "events", "note"])
        if results.comparisons is not None:
            for sentence in results.comparisons["sentence"]:
                print(sentence)
        print(f"report: {self.report(run)}")

    def report(self, run: Path) -> Path:
        return write_report(run, RunFolder.open(run).config["name"])


def content(cohort: Cohort) -> dict[str, str]:
    """What a cohort holds; of slides, which there are and how large their files."""
    genes = cohort.genes
    return {
        "patients": digest(cohort.patients.to_csv()),
        "genes": digest(None if genes is None else genes.to_numpy(), "" if genes is None else genes[[]].T.to_csv()),
        "slides": digest(*([] if cohort.bags is None else cohort.bags.inventory())),
    }


TASK = Survival()
