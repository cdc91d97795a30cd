"""Two processes with half a batch each are one process with the whole batch, loss and gradients; chunks likewise."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from fusion.tokens import Tokens
from tasks.retrieval.cached_gradients import backward_in_chunks
from tasks.retrieval.objectives import GlobalContrast, HybridContrast, Objective, TokenContrast
from tasks.retrieval.two_towers import Encoded, Projection
from tests.tasks.retrieval.filip_cases import same_rows

BATCH, DIMS = 8, 6


def parts(cls: type[Objective]) -> tuple[nn.Module, nn.Module, Objective, Tokens, Tokens]:
    """Projections, objective and a batch whose items differ in length; the same in every process."""
    torch.manual_seed(5)
    left, right = (Projection(DIMS, 8, hidden=8, heads=2, dropout=0.0) for _ in range(2))
    keep = torch.arange(5) < torch.randint(1, 6, (BATCH, 1))
    given = Tokens(torch.randn(BATCH, 5, DIMS), keep)
    return left, right, cls(), given, Tokens.full(torch.randn(BATCH, 4, DIMS))


def loss_of_half(rank: int, ranks: int, cls: type[Objective]) -> tuple[torch.Tensor, list[nn.Module]]:
    left, right, objective, a, b = parts(cls)
    rows = torch.arange(BATCH)[rank * BATCH // ranks : (rank + 1) * BATCH // ranks]
    longest = int(a.keep[rows].sum(dim=1).max())
    encoded = left(Tokens(a.x[rows, :longest], a.keep[rows, :longest])), right(Tokens(b.x[rows], b.keep[rows]))
    return objective(*encoded, rows, rows, same_rows), [left, right, objective]


def gradients(modules: list[nn.Module]) -> list[torch.Tensor]:
    return [p.grad for module in modules for p in module.parameters() if p.grad is not None]


def worker(rank: int, port: int, folder: str, cls: type[Objective]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    loss, modules = loss_of_half(rank, 2, cls)
    loss.backward()
    averaged = gradients(modules)
    for gradient in averaged:
        dist.all_reduce(gradient)
        gradient /= 2
    value = loss.detach().clone()
    dist.all_reduce(value)
    if rank == 0:
        torch.save([value / 2, *averaged], Path(folder) / "found.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_two_ranks_are_one_process_with_the_joined_batch(tmp_path: Path):
    cls = HybridContrast
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(worker, (port, str(tmp_path), cls), nprocs=2, start_method="fork")
    loss, modules = loss_of_half(0, 1, cls)
    loss.backward()
    expected = [loss.detach(), *gradients(modules)]
    found = torch.load(tmp_path / "found.pt")
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", [GlobalContrast, TokenContrast, HybridContrast])
@pytest.mark.parametrize("chunk", [1, 3, BATCH])
def test_chunks_leave_the_gradients_of_the_whole_batch(cls: type[Objective], chunk: int):
    loss, modules = loss_of_half(0, 1, cls)
    loss.backward()
    expected = gradients(modules)
    left, right, objective, a, b = parts(cls)
    rows = torch.arange(BATCH)

    def chunks(tokens: Tokens) -> list[Tokens]:
        return [Tokens(tokens.x[part], tokens.keep[part]) for part in rows.split(chunk)]

    def whole(x: Encoded, y: Encoded) -> torch.Tensor:
        return objective(x, y, rows, rows, same_rows)

    value = backward_in_chunks((left, chunks(a)), (right, chunks(b)), whole)
    torch.testing.assert_close(value, loss.detach())
    for ours, theirs in zip(gradients([left, right, objective]), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_dropout_is_drawn_alike_in_both_passes():
    torch.manual_seed(1)
    project = Projection(DIMS, 8, hidden=8, heads=2, dropout=0.5)
    seen: list[torch.Tensor] = []

    def watched(tokens: Tokens) -> Encoded:
        encoded = project(tokens)
        seen.append(encoded.global_vector.detach())
        return encoded

    given = [Tokens.full(torch.randn(2, 3, DIMS)) for _ in range(2)]
    rows = torch.arange(4)
    objective = GlobalContrast()
    backward_in_chunks((watched, given), (watched, given), lambda x, y: objective(x, y, rows, rows, same_rows))
    for first, again in zip(seen[:4], seen[4:], strict=True):
        torch.testing.assert_close(first, again, rtol=0, atol=0)
