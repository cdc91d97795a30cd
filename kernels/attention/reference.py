"""The definition of attention with every option, written for reading. It builds the map; autograd differentiates it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kernels.attention import dropout
from kernels.attention.problem import Problem, Rows


def weights(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b j s d"], problem: Problem
) -> tuple[Float[Tensor, "b h n s"], Float[Tensor, "b h n s"], Float[Tensor, "b h n"]]:
    """Weights p, masked scores and their log-sum-exp.

    scores_ij = scale q_i.k_j + bias_ij on pairs that meet, else -inf;  lse_i = log sum_j exp scores_ij;
    p_ij = exp(scores_ij - lse_i). A query that meets no key has p = 0 and lse = -inf.
    """
    (b, h, n, _), s = q.shape, k.shape[2]
    k = k.repeat_interleave(h // k.shape[1], dim=1)
    scores = problem.scale * (q @ k.mT)
    if problem.bias is not None:
        scores = scores + problem.bias.dense(n, s)
    allowed = problem.masks.rows(0, n, n, s, q.device)
    if allowed is not None:
        scores = scores.masked_fill(~allowed[:, None], -torch.inf)
    finite = scores.isfinite()
    alive = finite.any(dim=-1)
    lse = (
        torch.where(alive, scores.where(alive[..., None], 0.0).logsumexp(dim=-1), -torch.inf)
        if s
        else (scores.new_full((b, h, n), -torch.inf))
    )
    p = (scores - lse.where(alive, 0.0)[..., None]).where(finite, -torch.inf).exp()
    return p, scores, lse


def attend(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b j s d"], v: Float[Tensor, "b j s e"], problem: Problem
) -> Rows:
    """Attention and all extras by definition.

    out_i = sum_j z_ij p_ij v_j with z the dropout factor (0 or 1 / (1 - dropout)); entropy_i = -sum_j p_ij log p_ij;
    peak_i = max_j p_ij; mass_j = sum_i p_ij; group_mass_ig and group_out_ig are the sums over keys of group g of p_ij
    and of z_ij p_ij v_j.
    """
    (b, h, n, _), s = q.shape, k.shape[2]
    v = v.repeat_interleave(h // v.shape[1], dim=1)
    p, scores, lse = weights(q, k, problem)
    used = p
    if problem.dropout and problem.seed is not None:
        survive = dropout.survivors(problem.seed, problem.dropout, b, h, 0, n, s)
        used = p * survive / (1.0 - problem.dropout)
    entropy = peak = peak_at = mass = group_mass = group_out = None
    if "entropy" in problem.want:
        alive = lse.isfinite()
        mean_score = (p * scores.where(scores.isfinite(), 0.0)).sum(dim=-1)
        entropy = torch.where(alive, lse.where(alive, 0.0) - mean_score, 0.0)
    if "peak" in problem.want:
        peak_at = p.argmax(dim=-1) if s else lse.new_zeros(b, h, n, dtype=torch.long)
        peak = p.gather(-1, peak_at[..., None])[..., 0] if s else torch.zeros_like(lse)
    if "mass" in problem.want:
        mass = p.sum(dim=-2)
    member = problem.member(p.dtype)
    if member is not None:
        group_mass = p @ member
        group_out = torch.einsum("bhns,bhsg,bhse->bhnge", used, member.expand(b, h, -1, -1), v)
    return Rows(used @ v, lse, entropy, peak, peak_at, mass, group_mass, group_out)
