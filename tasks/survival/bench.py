"""One training step of CMTA, timed beside a plain composition of the same mathematics on one thread.

The authors' code cannot be shipped. The peer here is written from the paper: three convolutions for the position, the
attention of 128 landmarks matrix by matrix, cross attention with every token projected, all rows of every layer. What
the authors' own code needed is in the note, as recorded; ratios to it hold on the machine where both were run.
"""

from __future__ import annotations

import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from data.cohort.batch import CohortSizes, PatientBatch
from fusion.attention import Read
from fusion.block import Block
from fusion.grid_convolution import GridConvolution
from fusion.operators.co_attention import CoAttention
from fusion.operators.dense import Dense
from fusion.operators.nystrom_zero_padded import ZeroPaddedNystrom
from fusion.tokens import Tokens
from tasks.survival.losses import DiscreteHazard
from tasks.survival.models import CMTA

GROUPS = {
    "suppressors": 94,
    "oncogenes": 334,
    "kinases": 521,
    "differentiation": 468,
    "factors": 1496,
    "cytokines": 479,
}
AUTHORS = {500: 0.53, 2000: 0.97, 8000: 3.31}
PATCHES = (500, 2000, 8000, 20000)
PEER_UP_TO = 8000


class PlainNystrom(ZeroPaddedNystrom):
    """The definition, every matrix formed."""

    def forward(self, query: Tokens, source: Tokens | None = None) -> Read:
        n, m = query.x.shape[1], self.landmarks
        x = F.pad(query.x, (0, 0, -n % m, 0))
        q, k, v = (
            rearrange(part, "b n (h d) -> b h n d", h=self.heads)
            for part in (self.to_query(x) * self.head_width**-0.5, *self.to_source(x).chunk(2, dim=-1))
        )
        q_mean, k_mean = (part.unflatten(2, (m, -1)).mean(dim=3) for part in (q, k))
        pairs = ((q, k_mean), (q_mean, k_mean), (q_mean, k))
        reads, landmarks, gathers = ((a @ b.transpose(-1, -2)).softmax(dim=-1) for a, b in pairs)
        out = (reads @ self._inverse(landmarks)) @ (gathers @ v)
        kernel = rearrange(self.filter, "h t -> h 1 t 1")
        out = out + F.conv2d(v, kernel, padding=(self.kernel // 2, 0), groups=self.heads)
        return Read(self.join(out)[:, -n:])

    def _inverse(self, a: Float[Tensor, "b h l l"]) -> Float[Tensor, "b h l l"]:
        z = a.transpose(-1, -2) / (a.sum(dim=-1).max() * a.sum(dim=-2).max())
        one = torch.eye(a.shape[-1])
        for _ in range(self.steps):
            az = a @ z
            z = 0.25 * z @ (13 * one - az @ (15 * one - az @ (7 * one - az)))
        return z


class PlainBlock(Block):
    """All rows, whoever asks."""

    def first_rows(self, tokens: Tokens, rows: int) -> Tokens:
        return self(tokens)


class PlainConvolution(GridConvolution):
    """Three convolutions over the square on which the tokens lie."""

    def forward(self, tokens: Tokens) -> Tokens:
        side = round(tokens.x.shape[1] ** 0.5)
        image = rearrange(tokens.x, "b (i j) w -> b w i j", i=side)
        moved = image + sum(convolution(image) for convolution in self.convolutions)
        return tokens.with_x(rearrange(moved, "b w i j -> b (i j) w"))


def plain(model: nn.Module) -> nn.Module:
    """The same weights, computed without any of the savings."""
    swaps = {ZeroPaddedNystrom: PlainNystrom, Block: PlainBlock, GridConvolution: PlainConvolution, CoAttention: Dense}
    for module in model.modules():
        if type(module) in swaps:
            module.__class__ = swaps[type(module)]
    return model


def patient(patches: int) -> PatientBatch:
    """One patient with slides that cover half of their bounding box."""
    draw = torch.Generator().manual_seed(patches)
    side = int((2 * patches) ** 0.5) + 1
    at = torch.randperm(side * side, generator=draw)[:patches].sort().values
    return PatientBatch(
        case_id=["patient"],
        patches=torch.randn(1, patches, 1024, generator=draw).relu(),
        slide_keep=torch.ones(1, patches, dtype=torch.bool),
        grid=torch.stack([at % side, at // side], dim=1)[None] * 512.0,
        genes={name: torch.randn(1, size, generator=draw) for name, size in GROUPS.items()},
        genes_present=torch.tensor([True]),
        covariates=torch.zeros(1, 0),
        offset=torch.zeros(1),
        time=torch.tensor([12.0]),
        event=torch.tensor([True]),
        bins=torch.tensor([1]),
    )


def step_of(model: nn.Module, batch: PatientBatch) -> Callable[[], None]:
    """Forward, loss, backward and an SGD update, with the paper's settings."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-5)
    loss = DiscreteHazard(4)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(batch), batch).backward()
        optimizer.step()

    return step


def measure(variant: str, patches: int, repeats: int = 3) -> dict[str, Any]:
    """One row: best CPU seconds of `repeats` steps, ours and the peer's in turn, and our peak memory."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes, batch = CohortSizes(1024, GROUPS, (), 4), patient(patches)
    steps = {"ours": step_of(CMTA(sizes, variant=variant).train(), batch)}  # type: ignore[arg-type]
    steps["ours"]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if patches <= PEER_UP_TO:
        steps["peer"] = step_of(plain(CMTA(sizes, variant="published")).train(), batch)
        steps["peer"]()
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.process_time()
            step()
            best[name] = min(best[name], time.process_time() - start)
    recorded = f"authors' code, recorded elsewhere: {AUTHORS[patches]} s" if patches in AUTHORS else "no peer: memory"
    return {
        "case": f"{variant}, {patches:,} patches",
        "ours_s": round(best["ours"], 4),
        "peer": "plain composition of the published mathematics" if "peer" in best else None,
        "peer_s": round(best["peer"], 4) if "peer" in best else None,
        "ratio": round(best["ours"] / best["peer"], 3) if "peer" in best else None,
        "peak_mb": round(peak),
        "note": recorded,
    }


def run() -> dict[str, Any]:
    """Every case in a process of its own, so that its peak memory is its own."""
    rows = []
    for variant in ("published", "exact"):
        for patches in PATCHES:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(measure, (variant, patches)))
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"bench": "cmta", "device": f"cpu, 1 thread, {platform.machine()}", "versions": versions, "rows": rows}
