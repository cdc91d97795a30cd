"""Shared trunks over the outputs of few-shot adapters: what such an output says about which candidate was seen.

An adapter fitted on n samples gives biased and noisy outputs; a trunk learns from many subjects, whose adapters were
fitted in the same way, what the outputs for each candidate look like, and is applied unchanged to a new subject.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import nn

from encoders.brain import ResidualTrunk


class Trunk(ABC):
    """Learn from outputs whose candidates are known, then score others.

    `quick` says that a fit takes milliseconds, so that it can be repeated to choose between adapters.
    """

    quick: ClassVar[bool] = True

    @abstractmethod
    def fit(
        self,
        outputs: Float[np.ndarray, "n f"],
        which: Int[np.ndarray, " n"],
        targets: Float[np.ndarray, "k e"],
        *,
        seed: int,
    ) -> Trunk:
        """Learn.

        Args:
            outputs: of the adapters of all training subjects
            which: the candidate each sample belongs to
            targets: embedding of every candidate; candidates without a sample are known by theirs alone
            seed: of everything random
        """

    @abstractmethod
    def score(self, outputs: Float[np.ndarray, "m f"]) -> Float[np.ndarray, "m k"]:
        """How well each output fits each candidate; comparable along rows and columns."""


class NoTrunk(Trunk):
    """The adapter alone: correlation of its output with each target."""

    def fit(
        self,
        outputs: Float[np.ndarray, "n f"],
        which: Int[np.ndarray, " n"],
        targets: Float[np.ndarray, "k e"],
        *,
        seed: int,
    ) -> NoTrunk:
        self.targets = _unit(targets)
        return self

    def score(self, outputs: Float[np.ndarray, "m f"]) -> Float[np.ndarray, "m k"]:
        return _unit(outputs[:, : self.targets.shape[1]]) @ self.targets.T


class GaussianTrunk(Trunk):
    """A linear trunk: the output for a candidate is normal, its mean linear in the candidate's target.

    y ~ N(A [1, t, |t|], C); A by ridge regression, C the residual covariance, shrunk to its diagonal. The score is the
    log of p(y | candidate) / mean over candidates of p(y | .), so that rows can be compared as well as columns.

    Args:
        shrinkage: part of the correlations that is removed from C, 0 to 1
        ridge: added to the Gram matrix of the standardised targets, per sample
    """

    def __init__(self, shrinkage: float = 0.5, ridge: float = 1e-3):
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"GaussianTrunk: shrinkage={shrinkage}; expected 0 to 1")
        self.shrinkage, self.ridge = shrinkage, ridge

    def fit(
        self,
        outputs: Float[np.ndarray, "n f"],
        which: Int[np.ndarray, " n"],
        targets: Float[np.ndarray, "k e"],
        *,
        seed: int,
    ) -> GaussianTrunk:
        design = _design(targets)
        seen = design[which]
        gram = seen.T @ seen + self.ridge * len(seen) * np.eye(seen.shape[1])
        slopes = np.linalg.solve(gram, seen.T @ outputs)
        self.means = design @ slopes
        rest = outputs - self.means[which]
        spread = rest.std(axis=0) + 1e-9 * (1 + np.abs(outputs).mean(axis=0))
        alike = (rest / spread).T @ (rest / spread) / len(rest)
        alike = (1 - self.shrinkage) * alike + self.shrinkage * np.eye(len(alike))
        # One factor for all distances: |whiten (y - mean)|^2 is the Mahalanobis distance.
        values, vectors = np.linalg.eigh(alike)
        self.whiten = (vectors / np.sqrt(np.maximum(values, 1e-6))) / spread[:, None]
        return self

    def score(self, outputs: Float[np.ndarray, "m f"]) -> Float[np.ndarray, "m k"]:
        seen, expected = outputs @ self.whiten, self.means @ self.whiten
        apart = (seen**2).sum(axis=1)[:, None] + (expected**2).sum(axis=1) - 2 * seen @ expected.T
        likelihood = -0.5 * apart
        highest = likelihood.max(axis=1, keepdims=True)
        mean: np.ndarray = likelihood - highest - np.log(np.exp(likelihood - highest).mean(axis=1, keepdims=True))
        return mean


class ContrastiveTrunk(Trunk):
    """A residual trunk trained with InfoNCE over the candidates; without blocks it is linear.

    Args:
        blocks: residual blocks of STTM's form; 0 = a linear map alone
        width: of the blocks
        steps: of AdamW with a one-cycle rate, on all samples at once
        rate: highest learning rate
        decay: weight decay
        noise: standard deviation of noise on the standardised outputs
        dropout: in the blocks
        temperature: of the cosine scores
    """

    quick: ClassVar[bool] = False

    def __init__(
        self,
        blocks: int = 2,
        width: int = 64,
        steps: int = 100,
        rate: float = 1e-2,
        decay: float = 1e-2,
        noise: float = 0.5,
        dropout: float = 0.15,
        temperature: float = 0.1,
    ):
        if steps < 2:
            raise ValueError(f"ContrastiveTrunk: steps={steps}; expected at least 2")
        self.blocks, self.width, self.steps, self.rate = blocks, width, steps, rate
        self.decay, self.noise, self.dropout, self.temperature = decay, noise, dropout, temperature

    def fit(
        self,
        outputs: Float[np.ndarray, "n f"],
        which: Int[np.ndarray, " n"],
        targets: Float[np.ndarray, "k e"],
        *,
        seed: int,
    ) -> ContrastiveTrunk:
        self.mean, self.spread = outputs.mean(axis=0), outputs.std(axis=0) + 1e-9
        x, y = self._standard(outputs), torch.as_tensor(which)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _Network(x.shape[1], targets.shape[1], self.width, self.blocks, self.dropout)
            goal = torch.as_tensor(targets / targets.std(), dtype=torch.float32)
            optimizer = torch.optim.AdamW(self.network.parameters(), self.rate, weight_decay=self.decay)
            cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=self.steps)
            for _ in range(self.steps):
                scores = self.network(x + self.noise * torch.randn_like(x), goal) / self.temperature
                optimizer.zero_grad()
                F.cross_entropy(scores, y).backward()
                optimizer.step()
                cycle.step()
        self.network.eval()
        self.goal = goal
        return self

    @torch.no_grad()
    def score(self, outputs: Float[np.ndarray, "m f"]) -> Float[np.ndarray, "m k"]:
        return self.network(self._standard(outputs), self.goal).double().numpy()

    def _standard(self, outputs: Float[np.ndarray, "m f"]) -> torch.Tensor:
        return torch.as_tensor((outputs - self.mean) / self.spread, dtype=torch.float32)


class _Network(nn.Module):
    """Outputs and targets into one space, by cosine."""

    def __init__(self, wide_in: int, targets: int, width: int, blocks: int, dropout: float):
        super().__init__()
        self.skip = nn.Linear(wide_in, targets)
        self.goal = nn.Linear(targets, targets)
        nn.init.eye_(self.goal.weight)
        nn.init.zeros_(self.goal.bias)
        self.deep = nn.Sequential()
        if blocks:
            last = nn.Linear(width, targets)
            nn.init.zeros_(last.weight)
            self.deep = nn.Sequential(nn.Linear(wide_in, width), ResidualTrunk(width, blocks, dropout), last)

    def forward(self, x: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        y = self.skip(x) + (self.deep(x) if len(self.deep) else 0.0)
        return F.normalize(y, dim=1) @ F.normalize(self.goal(goal), dim=1).T


def _design(targets: Float[np.ndarray, "k e"]) -> Float[np.ndarray, "k d"]:
    """1, the standardised target and its length: what the mean output may depend on."""
    length = np.linalg.norm(targets, axis=1, keepdims=True)
    parts = np.hstack([targets, length])
    spread = parts.std(axis=0)
    standard = (parts - parts.mean(axis=0)) / np.where(spread > 1e-9 * (1 + np.abs(parts).max()), spread, np.inf)
    return np.hstack([np.ones((len(targets), 1)), standard])


def _unit(rows: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n e"]:
    """Each row without its mean, at length 1."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
