"""Simulated bags: patches of a few tissue types on a grid, one of them aggressive and gathered around a focus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from data.slides.feature_files import Bag

PITCH = 512
SHARE = (1.2, 2.0)


@dataclass(frozen=True)
class Tissue:
    """How a patch looks: a prototype per tissue type, plus noise.

    Args:
        prototypes: `[types, c]`; the first is the aggressive type
        noise: standard deviation of a patch around its prototype
    """

    prototypes: Float[np.ndarray, "i c"]
    noise: float

    @classmethod
    def drawn(cls, width: int, draw: np.random.Generator, types: int = 4, noise: float = 1.0) -> Tissue:
        return cls(draw.normal(size=(types, width)), noise)


def share_to_term(share: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Share of aggressive patches, scaled by its law's mean and standard deviation (a Beta distribution)."""
    a, b = SHARE
    mean, variance = a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))
    return (share - mean) / np.sqrt(variance)


def drawn_bag(
    case_id: str, patches: int, tissue: Tissue, draw: np.random.Generator, share: float | None = None
) -> tuple[Bag, Bool[np.ndarray, " p"]]:
    """A patient's bag, on one slide or two, and which of its patches are aggressive.

    Args:
        case_id: the slides are named after it
        patches: mean number; a patient has between half and one and a half times as many
        tissue: how patches look
        draw: source of randomness
        share: of aggressive patches; None = drawn from its law, a Beta distribution
    """
    drawn = draw.beta(*SHARE)
    share = drawn if share is None else share
    n = int(draw.integers(max(2, patches // 2), patches + patches // 2 + 1))
    second = int(n * draw.uniform(0.2, 0.5)) if draw.uniform() < 0.3 else 0
    parts, aggressive = [], []
    for index, count in enumerate(c for c in (n - second, second) if c):
        cells = _section(count, draw)
        focus = cells[draw.integers(count)]
        near = np.argsort(((cells - focus) ** 2).sum(axis=1), kind="stable")
        bad = np.zeros(count, dtype=bool)
        bad[near[: round(share * count)]] = True
        mixture = draw.dirichlet(np.full(len(tissue.prototypes) - 1, 2.0))
        kinds = np.where(bad, 0, 1 + draw.choice(len(mixture), size=count, p=mixture))
        features = tissue.prototypes[kinds] + tissue.noise * draw.normal(size=(count, tissue.prototypes.shape[1]))
        parts.append(
            Bag(
                features=torch.from_numpy(features.astype(np.float32)),
                grid=torch.from_numpy((cells * PITCH).astype(np.float32)),
                slide=torch.zeros(count, dtype=torch.long),
                slides=(f"{case_id}-DX{index + 1}",),
            )
        )
        aggressive.append(bad)
    return Bag.join(parts), np.concatenate(aggressive)


def _section(count: int, draw: np.random.Generator) -> np.ndarray:
    """Grid cells of a roundish piece of tissue, column by column as a scanner's grid is laid, `[count, 2]`."""
    side = int(np.ceil(1.3 * np.sqrt(count)))
    x, y = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    cells = np.stack([x.ravel(), y.ravel()], axis=1)
    centre = draw.uniform(0.4, 0.6, size=2) * side
    nearest = np.argsort(((cells - centre) ** 2).sum(axis=1), kind="stable")[:count]
    return cells[np.sort(nearest)]
