"""Two processes that share every batch are one process with the joined batch: losses, gradients and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch.utils.data import BatchSampler

from tasks.experiment.config import resolve
from tasks.experiment.launch import run_in_ranks
from tasks.experiment.order import EpochOrder
from tasks.experiment.ranks import Share, parts_of
from tasks.experiment.signatures import ConfigError
from tasks.experiment.task import devices
from tasks.experiment.trainer import TrainerOptions
from tasks.experiment.units import Unit, run_unit
from tasks.retrieval import unit as retrieval_unit
from tasks.retrieval.experiment import RetrievalExperiment
from tasks.survival import unit as survival_unit
from tasks.survival.experiment import SurvivalExperiment
from tests.tasks.rank_jobs import fails_on_one
from tests.tasks.retrieval import toy

STEPS = 20
BAR = 1e-6
NO_DROPOUT = {"dropout": 0.0, "read_dropout": 0.0}
CASES = {
    "CMTA, hazards": ({"class_path": "CMTA", "init_args": NO_DROPOUT}, {"class_path": "DiscreteHazard"}),
    "SNN, Cox": ({"class_path": "SNN", "init_args": {"dropout": 0.0}}, {"class_path": "CoxPartialLikelihood"}),
}


def survival(folder: Path, model: dict[str, Any], loss: dict[str, Any]) -> dict[str, Any]:
    """40 training patients in batches of 13: uneven parts, and a last batch of one patient that only one rank has."""
    cohort = {"patients": 60, "patches": 8, "width": 8, "folds": 3, "missing_slides": 0.2, "missing_genes": 0.2}
    return {
        "name": "ranks",
        "cohort": {"class_path": "SimulatedCohort", "init_args": cohort},
        "model": model,
        "loss": loss,
        "optimizer": recorded(folder, 1e-2),
        "prepare": {"class_path": "Preparation", "init_args": {"covariates": ["age"]}},
        "fit": {"batch_size": 13},
        "trainer": {"max_epochs": 5, "accelerator": "cpu"},
        "runs": str(folder),
    }


def recorded(folder: Path, lr: float) -> dict[str, Any]:
    """SGD, because AdamW scales a gradient that is nothing but rounding to a full step."""
    made = {"record": str(folder / "steps.pt"), "lr": lr}
    return {"class_path": "tests.tasks.recorded.RecordedSGD", "init_args": made}


def steps(folder: Path, function: Any, experiment: type, config: dict[str, Any], ranks: int) -> tuple[Path, Any]:
    """Run a unit on so many processes; its folder, and the loss and the gradients of every step."""
    both = {"devices": ranks, "strategy": "ddp" if ranks > 1 else "auto"}
    resolved = resolve(experiment, {**config, "trainer": {**config["trainer"], **both}})
    assert devices(resolved) == ranks
    arguments = {"config": resolved, "arm": config["name"], "fold": 0, "seed": 3}
    outcome = run_unit(Unit(folder / config["name"] / "fold0-seed3", function, arguments, ranks))
    assert outcome.error is None, (outcome.folder / "error.txt").read_text()
    return outcome.folder, torch.load(folder / "steps.pt")


def assert_alike(one: Any, two: Any, relative: bool = False) -> None:
    """Within the bar; `relative` = gradients within the bar times the step's largest where that is above 1."""
    assert len(one) == len(two) == STEPS
    for step, ((loss, gradients), (other_loss, others)) in enumerate(zip(one, two, strict=True)):
        assert abs(loss - other_loss) <= BAR, f"step {step}: losses {loss} and {other_loss}"
        assert len(gradients) == len(others)
        allowed = BAR * max(1.0, *(float(gradient.abs().max()) for gradient in gradients)) if relative else BAR
        for gradient, other in zip(gradients, others, strict=True):
            torch.testing.assert_close(
                gradient, other, rtol=0, atol=allowed, msg=lambda said, at=step: f"step {at}: {said}"
            )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_survival_on_two_ranks_is_survival_on_one(tmp_path: Path, case: str):
    found = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        found.append(steps(folder, survival_unit.run, SurvivalExperiment, survival(folder, *CASES[case]), ranks))
    (one, alone), (two, together) = found
    assert_alike(alone, together)
    risks = [pd.read_csv(path / "predictions.csv").set_index("case_id")["risk"] for path in (one, two)]
    pd.testing.assert_series_equal(*risks, rtol=0, atol=1e-5)


PROJECTION_EACH = {"class_path": "HybridContrast", "init_args": {"separate_pooled": True}}
CONTRASTS = [
    (objective, *steps)
    for objective in ("GlobalContrast", "TokenContrast", "HybridContrast")
    for steps in (("64-true", 3e-2), ("32-true", 3e-3))
]


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "precision", "lr"), [*CONTRASTS, (PROJECTION_EACH, "64-true", 3e-2)])
def test_contrast_with_gathered_negatives_is_contrast_of_the_whole_batch(
    tmp_path: Path, objective: Any, precision: str, lr: float
):
    """In float64 every entry of every gradient is within the bar, after large steps too.

    In float32 a gradient of 2.7 is rounded by 3e-7, so the bar grows with the step's largest gradient where that is
    above 1. And the steps are smaller: at 3e-2 two patches of a picture come so close that rounding decides which of
    them is a word's partner, and the gradients of that step differ by up to 5e-5, as they would between any two orders
    of a sum. With a projection for each loss 6 of 4,800 entries of step 2 are 1.3e-6 apart in float32, so that is held
    in float64 alone.
    """
    found = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        own = {"objective": objective, "rivals": {}, "optimizer": recorded(folder, lr)}
        trained = {"trainer": {"max_epochs": 10, "accelerator": "cpu", "precision": precision}}
        config = {key: value for key, value in toy.config(folder, **own, **trained).items() if key != "task"}
        found.append(steps(folder, retrieval_unit.run, RetrievalExperiment, config, ranks))
    (one, alone), (two, together) = found
    assert_alike(alone, together, relative=precision == "32-true")
    ranks_of = [pd.read_csv(path / "queries.csv")["reciprocal_rank"].mean() for path in (one, two)]
    assert abs(ranks_of[0] - ranks_of[1]) < 0.02


@pytest.mark.parametrize(("cases", "size", "ranks"), [(40, 13, 2), (7, 3, 2), (5, 1, 3), (9, 4, 4)])
def test_parts_of_a_batch_are_the_batch(cases: int, size: int, ranks: int):
    whole = list(BatchSampler(EpochOrder(cases, 1), size, drop_last=False))
    shares = [Share(BatchSampler(EpochOrder(cases, 1), size, drop_last=False), rank, ranks) for rank in range(ranks)]
    assert {len(share) for share in shares} == {len(whole)}
    for number, (batch, *parts) in enumerate(zip(whole, *shares, strict=True)):
        counts = shares[0].sizes(number)
        assert counts == parts_of(len(batch), ranks)
        assert max(counts) - min(counts) <= 1
        assert [case for part, count in zip(parts, counts, strict=True) for case in part[:count]] == list(batch)
        assert all(part for part in parts), "a rank without a part has a stand-in"


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("raises", "model.width: expected at least 1, found 0"),
        ("dies", "rank 1 died with exit code -9 (a crash in native code, or out of memory)"),
        ("works", None),
    ],
)
def test_one_rank_that_fails_ends_the_unit_with_its_reason(tmp_path: Path, how: str, error: str | None):
    unit = Unit(tmp_path / "unit", fails_on_one, {"how": how}, ranks=2)
    outcome = run_unit(unit)
    assert outcome.error == error
    if how == "raises":
        assert "in rank 1:" in (unit.folder / "error.txt").read_text()
    if how == "works":
        assert run_in_ranks(fails_on_one, {"folder": unit.folder, "how": how}, 2) == {"rank": "0", "of": "2"}
        assert unit.done


def test_what_cannot_share_a_batch_says_so(tmp_path: Path):
    with pytest.raises(ValueError, match=r"trainer\.strategy: for 2 devices expected one of auto, ddp, .*found 'fsdp'"):
        TrainerOptions(devices=2, strategy="fsdp")
    config = survival(tmp_path, *CASES["SNN, Cox"])
    resolved = resolve(SurvivalExperiment, {**config, "trainer": {"max_epochs": 1, "devices": 2}})
    with pytest.raises(ConfigError, match=r"trainer\.devices=2: SurvivalTask learns on one device; leave it at 1"):
        survival_unit.run(tmp_path, resolved, "ranks", 0, 1)
    pairs = {key: value for key, value in toy.config(tmp_path).items() if key != "task"}
    odd = {**pairs, "fit": {"batch_size": 5}, "trainer": {"devices": 2}}
    with pytest.raises(
        ConfigError, match=r"fit\.batch_size: 5 pairs cannot be shared out evenly to trainer\.devices=2"
    ):
        retrieval_unit.run(tmp_path / "a" / "b", resolve(RetrievalExperiment, odd), "hybrid", 0, 1)
