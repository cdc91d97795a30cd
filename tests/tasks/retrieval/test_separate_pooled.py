"""Pooled vectors from projections of their own: the two losses share encoders, and no weight of a projection."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from fusion.tokens import Tokens
from tasks.experiment.config import experiment_class, resolve
from tasks.experiment.trainer import TrainerOptions
from tasks.retrieval.build_index import Opened, build
from tasks.retrieval.experiment import experiment_of
from tasks.retrieval.fit_unit import FitOptions, fit_towers
from tasks.retrieval.objectives import HybridContrast
from tasks.retrieval.search import search
from tasks.retrieval.train import TASK
from tasks.retrieval.two_towers import SeparateProjections, TwoTowers
from tests.tasks.retrieval.command import retrieval
from tests.tasks.retrieval.filip_cases import Vectors, same_rows, toy_pairs
from tests.tasks.retrieval.toy import config, written

SEPARATE = {"class_path": "HybridContrast", "init_args": {"separate_pooled": True}}


def towers(separate: bool, standardize: bool = False) -> TwoTowers:
    torch.manual_seed(0)
    sides = ["left"] if standardize else []
    return TwoTowers(Vectors(6), Vectors(8), 8, 16, heads=2, dropout=0.0, standardize=sides, separate_pooled=separate)  # type: ignore[arg-type]


def items(seed: int) -> Tokens:
    x = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(seed))
    return Tokens(x, torch.arange(4) < torch.tensor([[4], [1], [2], [3], [4]]))


def test_tokens_come_from_one_projection_and_the_vector_from_the_other():
    parts = towers(separate=True).eval().left_projection
    assert isinstance(parts, SeparateProjections)
    found = parts(items(1))
    torch.testing.assert_close(found.x, parts.tokens(items(1)).x, rtol=0, atol=0)
    torch.testing.assert_close(found.global_vector, parts.pooled(items(1)).global_vector, rtol=0, atol=0)
    assert not torch.allclose(found.global_vector, parts.tokens(items(1)).global_vector, atol=0.1)


def test_with_the_same_weights_in_both_it_is_one_projection():
    one, two = towers(separate=False).eval(), towers(separate=True).eval()
    for parts, alone in ((two.left_projection, one.left_projection), (two.right_projection, one.right_projection)):
        parts.tokens.load_state_dict(alone.state_dict())
        parts.pooled.load_state_dict(alone.state_dict())
    found, expected = two.project_left(items(2)), one.project_left(items(2))
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=0)
    torch.testing.assert_close(found.global_vector, expected.global_vector, rtol=0, atol=0)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_either_loss_moves_its_own_projections_alone(weight: float):
    both = towers(separate=True)
    left, rows = items(3), torch.arange(5)
    right = Tokens.full(torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(4)))
    loss = HybridContrast(token_weight=weight)(
        both.project_left(left), both.project_right(right), rows, rows, same_rows
    )
    loss.backward()

    def moved(part: torch.nn.Module) -> bool:
        return any(weight.grad is not None and bool(weight.grad.any()) for weight in part.parameters())

    for parts in (both.left_projection, both.right_projection):
        assert (moved(parts.tokens), moved(parts.pooled)) == (weight == 1.0, weight == 0.0)


def test_both_learn_and_read_features_in_the_same_units(tmp_path: Path):
    found = fit_towers(
        towers(separate=True, standardize=True),
        HybridContrast(separate_pooled=True),
        toy_pairs(),
        functools.partial(torch.optim.AdamW, lr=5e-3),
        tmp_path / "unit",
        tmp_path / "features",
        1,
        FitOptions(batch_size=30, warmup=3),
        TrainerOptions(max_epochs=6, accelerator="cpu"),
    )
    parts, scores = found.towers.left_projection, found.epochs["validation_mrr"]
    assert scores.max() > max(0.25, scores.iloc[0])
    assert parts.pooled.standardize is parts.tokens.standardize
    assert parts.standardize.mean.any()


def test_only_the_arm_that_asks_for_it_has_them(tmp_path: Path):
    tree = config(tmp_path, rivals={"apart": SEPARATE, "global": "GlobalContrast", "tokens": "TokenContrast"})
    experiment = experiment_of(resolve(experiment_class(tree), tree))
    for arm, objective in experiment.objectives.items():
        built = experiment.build_towers(objective())
        assert isinstance(built.left_projection, SeparateProjections) == (arm == "apart")


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"class_path": "HybridContrast", "init_args": {"separate_pooled": "maybe"}}, "separate_pooled"),
        ({"class_path": "GlobalContrast", "init_args": {"separate_pooled": True}}, "separate_pooled"),
    ],
)
def test_what_it_cannot_be_is_one_line(
    objective: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    assert retrieval(monkeypatch, "train", "-c", written(tmp_path, objective=objective)) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


def test_a_run_is_trained_indexed_and_searched(tmp_path: Path):
    assert TASK.train([written(tmp_path, objective=SEPARATE)], seeds=[1]) == 0
    opened = Opened.of(tmp_path / "runs" / "retrieval" / "hybrid")
    parts = opened.trained.towers.left_projection
    assert isinstance(parts, SeparateProjections)
    assert not torch.allclose(parts.pooled.out[1].weight, parts.tokens.out[1].weight), "both weights were kept"
    build(opened, "collection:test", tmp_path / "idx", "left")
    found = search(tmp_path / "idx", "a blue quarter at the lower right", k=3)
    assert any(answer.id.startswith("blue-lower-right") for answer in found.answers)
