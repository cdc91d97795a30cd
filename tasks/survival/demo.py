"""The main job on an embedded default: a simulated cohort, a fused model, its baselines, the share of the ceiling."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.experiment.console import print_table, say
from tasks.survival.metrics import compare_arms
from tasks.survival.report_tables import CEILING
from tasks.survival.results import Results, read
from tasks.survival.train import TASK

CONFIG = "survival/demo"
SINGLE = ("slides alone (ABMIL)", "genes alone (SNN)", "ridge genes")
WANTED = 0.03


def demo(runs: Path) -> int:
    """Run the demo's config and say whether fusion was worth it.

    Args:
        runs: where run folders go; a finished demo is only read again

    Returns:
        exit code of the training
    """
    jobs = min(2, os.cpu_count() or 1)
    code = TASK.train(
        [CONFIG], [f"runs={runs}"], jobs=jobs, resume=(runs / "survival" / "demo" / "config.yaml").exists()
    )
    results = read(runs / "survival" / "demo")
    print_table([verdict(results)])
    return code


def verdict(results: Results) -> dict[str, object]:
    """Fusion against the better single modality, and the share of the way from chance to the true risk it reached."""
    assert results.summary is not None
    summary = results.summary
    mean = summary[(summary["metric"] == "c_index") & (summary["fold"] == "mean")].set_index("arm")["value"]
    better = max((arm for arm in SINGLE if arm in mean), key=lambda arm: float(mean[arm]))
    compared = compare_arms(results.predictions, "demo", better)
    gain = compared.difference
    enough = gain.value >= WANTED and gain.low > 0
    say(f"{compared.sentence}; at least +{WANTED} with an interval above 0 was wanted: {'met' if enough else 'MISSED'}")
    return {
        "fusion": float(mean["demo"]),
        "better single modality": better,
        "its c-index": float(mean[better]),
        "gain": gain.value,
        "low": gain.low,
        "high": gain.high,
        "ceiling": float(mean[CEILING]),
        "share of the ceiling": (float(mean["demo"]) - 0.5) / (float(mean[CEILING]) - 0.5),
    }
