"""The definition of received mass, written for reading. It builds the map; autograd differentiates it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kernels.attention.problem import Problem
from kernels.attention.reference import weights


def received_mass(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b j s d"], weight: Float[Tensor, "b h g n"], problem: Problem
) -> Float[Tensor, "b h g s"]:
    """mass_gj = sum_i weight_gi p_ij with p the attention weights of `problem`."""
    p, _, _ = weights(q, k, problem)
    return torch.einsum("bhgn,bhns->bhgs", weight.to(p.dtype), p)
