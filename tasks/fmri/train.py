"""Brain decoding in the common orchestration: what is run on which brains, and what is said at the end."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.brain.brain import Brains
from tasks.experiment.config import shortened
from tasks.experiment.console import print_table
from tasks.experiment.folder import write_whole
from tasks.experiment.same_data import digest
from tasks.experiment.signatures import ConfigError
from tasks.experiment.task import Plan, Task
from tasks.experiment.units import Unit
from tasks.fmri import control_units, unit
from tasks.fmri.evaluation import ALL, evaluate_run
from tasks.fmri.experiment import FmriExperiment
from tasks.fmri.outputs import write_outputs
from tasks.fmri.report import write as write_report

LEFT_OUT = re.compile(r"^(subject \S+ )?left out: ")
"""How a sentence of the account begins that says which subject is not in the run, and why."""


class Fmri(Task):
    """Train every arm of a config on every fold and seed, then measure, compare and report."""

    name = "fmri"
    unit = staticmethod(unit.run)
    untuned = "its decoders choose among themselves inside the training runs; give model.class_path=Nested"

    def fast(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Two epochs for every decoder that is trained by epochs, inside another one too, and for its new adapters."""
        return shortened(FmriExperiment, tree, trainer={"max_epochs": 2}, adapting={"epochs": 2})

    def plan(self, experiment: FmriExperiment) -> Plan:
        for name, network in experiment.controls.networks.items():
            if not Path(network).is_dir():
                raise ConfigError(f"controls.networks.{name}: {network} is no folder; give a local vision model")
        brains = experiment.brains.load()
        # The split notes in the account whom it cannot use, so it comes first.
        folds = len(experiment.split.splits(brains))
        return Plan(
            account="\n".join(dict.fromkeys(brains.account)),
            data=brains.name,
            folds=folds,
            arms=list(experiment.decoders),
            seedless=experiment.baselines.keys(),
            absent=experiment.left_out(),
            failures=[said for said in brains.account if LEFT_OUT.match(said)],
            content={
                f"subject {label}": digest(brain.x, brain.table[["run", "label", "stimulus"]].to_csv())
                for label, brain in brains.subjects.items()
            },
        )

    def beside(self, experiment: FmriExperiment, config: dict[str, Any], run: Path, folds: Sequence[int]) -> list[Unit]:
        return control_units.units(experiment, config, run)

    def finish(self, experiment: FmriExperiment, run: Path, folds: Sequence[int], seeds: Sequence[int]) -> None:
        brains = experiment.brains.load()
        write_whole(run / "data.json", json.dumps(facts(brains, len(experiment.split.splits(brains))), indent=2))
        results = evaluate_run(run)
        assert results.summary is not None
        shown = results.summary[(results.summary["subject"] == ALL) & (results.summary["metric"] == "accuracy")]
        print_table(
            shown.to_dict("records"), ["arm", "value", "low", "high", "chance", "null_p95", "n", "cuts_runs", "note"]
        )
        if results.comparisons is not None:
            for sentence in results.comparisons["sentence"]:
                print(sentence)
        for path in write_outputs(results, experiment, run / "derivatives")[:1]:
            print(f"derivatives: {path.parent}")
        print(f"report: {self.report(run)}")

    def report(self, run: Path) -> Path:
        return write_report(run)


def facts(brains: Brains, folds: int) -> dict[str, Any]:
    """What reports say of the data without reading them again.

    Args:
        brains: of the run
        folds: that its split has, scored or not
    """
    return {
        "name": brains.name,
        "folds": folds,
        "candidates": len(brains.candidates),
        "truth": brains.truth,
        "ceiling": brains.ceiling,
        "subjects": {
            label: {"samples": len(brain.table), "runs": len(brain.runs), "voxels": int(brain.x.shape[1])}
            for label, brain in brains.subjects.items()
        },
    }


TASK = Fmri()
