"""Small batches for the tests of survival models."""

from __future__ import annotations

import torch

from data.cohort.batch import CohortSizes, PatientBatch

GROUPS = {"a": 10, "b": 7, "c": 20, "d": 4, "e": 5, "f": 6}


def sizes(outputs: int = 4) -> CohortSizes:
    return CohortSizes(64, GROUPS, ("age",), outputs)


def patients(rng: torch.Generator, *lengths: int, genes: list[bool] | None = None, grid: bool = True) -> PatientBatch:
    """Bags of the given lengths on a 12 x 12 grid, with genes where `genes` says so."""
    b, p = len(lengths), max(lengths)
    cells = torch.stack([torch.randperm(144, generator=rng)[:p] for _ in range(b)])
    return PatientBatch(
        case_id=[f"P{i}" for i in range(b)],
        patches=torch.randn(b, p, 64, generator=rng),
        slide_keep=torch.arange(p) < torch.tensor(lengths)[:, None],
        grid=torch.stack([cells % 12, cells // 12], dim=2).float() * 256 if grid else None,
        genes={name: torch.randn(b, size, generator=rng) for name, size in GROUPS.items()},
        genes_present=torch.tensor(genes if genes is not None else [True] * b),
        covariates=torch.randn(b, 1, generator=rng),
        offset=torch.randn(b, generator=rng),
        time=torch.rand(b, generator=rng) * 50 + 1,
        event=torch.arange(b) % 3 != 1,
        bins=torch.randint(0, 4, (b,), generator=rng),
    )
