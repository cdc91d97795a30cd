"""Small survival run folders as the training command leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from tasks.survival.evaluation import evaluate_run

MONTHS = np.arange(0.0, 61.0, 6.0)


def patients(count: int, seed: int = 0) -> pd.DataFrame:
    """Patients whose hazard depends on a known risk: case_id, time (months), event, truth."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(count)
    died = rng.exponential(30 * np.exp(-truth))
    left = rng.uniform(6, 90, count)
    return pd.DataFrame(
        {
            "case_id": [f"P<{i:03d}>" for i in range(count)],
            "time": np.minimum(died, left).round(2) + 0.01,
            "event": died <= left,
            "truth": truth,
        }
    )


def write_unit(run: Path, arm: str, fold: int, cohort: pd.DataFrame, noise: float, epochs: int = 0) -> Path:
    """A finished unit that scores every third patient, with a risk that is the truth plus noise."""
    unit = run / arm / f"fold{fold}-seed1"
    unit.mkdir(parents=True)
    rng = np.random.default_rng([fold, len(arm)])
    scored = cohort.iloc[fold::3]
    risk = scored["truth"] + noise * rng.standard_normal(len(scored))
    scored[["case_id", "time", "event"]].assign(risk=risk).to_csv(unit / "predictions.csv", index=False)
    curves = pd.DataFrame(np.exp(-np.outer(np.exp(risk), MONTHS) / 30), columns=[f"{month:g}" for month in MONTHS])
    curves.insert(0, "case_id", scored["case_id"].to_numpy())
    curves.to_csv(unit / "curves.csv", index=False)
    cohort.drop(scored.index)[["case_id", "time", "event"]].assign(risk=0.0).to_csv(unit / "training.csv", index=False)
    if epochs:
        table = {"epoch": range(epochs), "train_loss": 1.0, "c_index": 0.5 + 0.15 * rng.random(epochs)}
        pd.DataFrame(table).to_csv(unit / "epochs.csv", index=False)
    (unit / "done.json").write_text("{}")
    return unit


def write_run(run: Path, arms: dict[str, float], folds: int = 3, evaluate: bool = True) -> Path:
    """A run of several arms (name -> noise on the true risk); the first is the one the run is named after."""
    own, *others = arms
    run.mkdir(parents=True)
    config = {"name": own, "model": {"class_path": "tasks.survival.models.CMTA"}, "rivals": dict.fromkeys(others)}
    config["cohort"] = {
        "class_path": "data.cohort.tables.TableCohort",
        "init_args": {"table": "x/tcga_<b>_all_clean.csv"},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    said = {
        "command": ["/anywhere/bin/survival", "train", "-c", "a b.yaml"],
        "started": "2026-11-22T10:00:00",
        "versions": {},
    }
    (run / "environment.json").write_text(json.dumps(said))
    (run / "account.txt").write_text("3 patients: no <age>")
    cohort = patients(120)
    for arm, noise in arms.items():
        for fold in range(folds):
            write_unit(run, arm, fold, cohort, noise, epochs=4 if arm == own else 0)
    if evaluate:
        evaluate_run(run, draws=60)
    return run
