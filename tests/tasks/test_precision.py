"""Weights and inputs of another width: batches of every shape follow, and survival networks train and predict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from tasks.experiment.precision import converted
from tasks.survival import unit
from tasks.survival.train import TASK


@dataclass(frozen=True)
class Inside:
    x: torch.Tensor


@dataclass(frozen=True)
class Batch:
    case: list[str]
    parts: dict[str, Inside]
    event: torch.Tensor
    missing: torch.Tensor | None = None


class Pair(NamedTuple):
    left: torch.Tensor
    right: int


def test_every_floating_point_tensor_is_converted_and_nothing_else():
    x = torch.ones(2)
    batch = Batch(["a", "b"], {"genes": Inside(x)}, torch.tensor([True, False]))
    batch, pair, (listed,) = converted([batch, Pair(x, 3), [(x, "text")]], torch.float64)
    assert batch.parts["genes"].x.dtype == torch.float64
    assert (batch.case, batch.event.dtype, batch.missing) == (["a", "b"], torch.bool, None)
    assert pair.left.dtype == torch.float64
    assert pair.right == 3
    assert listed[0].dtype == torch.float64
    assert listed[1] == "text"
    assert x.dtype == torch.float32


@pytest.mark.parametrize("model", ["CMTA", "OffsetFusion"])
def test_survival_trains_and_predicts_in_true_precisions(model: str, tmp_path: Path):
    risks = {}
    for precision in ("32-true", "64-true", "bf16-true"):
        given = [
            *("rivals=null", "baselines=null", f"model={model}", "cohort.patients=32", "cohort.patches=6"),
            *("trainer.max_epochs=1", "trainer.progress=false", f"trainer.precision={precision}"),
            "offset={class_path: LinearBaseline, init_args: {name: ridge, genes: true, penalty: 1.0}}",
        ]
        config = TASK.resolved_config(["survival/demo"], given)
        unit.run(tmp_path / precision, json.loads(json.dumps(config)), config["name"], 0, 1)
        risks[precision] = pd.read_csv(tmp_path / precision / "predictions.csv")["risk"].to_numpy()
    assert all(np.isfinite(risk).all() for risk in risks.values())
    assert not np.array_equal(risks["32-true"], risks["64-true"])
    np.testing.assert_allclose(risks["32-true"], risks["64-true"], atol=2e-3)
