"""Contrastive objectives on two towers: pooled vectors, tokens, or both (FILIP, arXiv 2111.07783)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fusion.alignment import Temperature, partner_cross_entropy
from fusion.tokens import Tokens
from kernels.max_similarity import max_similarity
from tasks.experiment.ranks import ranks
from tasks.retrieval.gather import gather, gather_rows
from tasks.retrieval.scores import Score
from tasks.retrieval.two_towers import Encoded

Relevance = Callable[[Sequence[int], Sequence[int]], Bool[np.ndarray, "n m"]]
"""Which of some left rows belong to which of some right rows: `Pairs.relevance`."""

MIXES = (0.0, 0.25, 0.5, 0.75, 1.0)


class PairScores(NamedTuple):
    """Scores of every left item (rows) with every right item (columns), -1 to 1; the two differ for tokens."""

    left_to_right: Float[Tensor, "a b"]
    right_to_left: Float[Tensor, "a b"]


class Term(NamedTuple):
    """One weighted cross entropy in both directions, on scaled scores."""

    weight: float
    left_to_right: Float[Tensor, "a b"]
    right_to_left: Float[Tensor, "a b"]


class Objective(nn.Module, ABC):
    """How two towers are trained, and how the trained ones score a pair.

    Args:
        token_keep: share of an item's tokens that is sent to other ranks, those with the highest maximum similarity
            against the local batch; a rank's own side is always whole
        send_half: send float16 to other ranks

    Attributes:
        score: what the trained towers rank by, see `tasks.retrieval.scores`
        separate_pooled: whether its towers have projections of their own for pooled vectors
    """

    score: ClassVar[Score]
    separate_pooled = False

    def __init__(self, token_keep: float = 1.0, send_half: bool = False):
        super().__init__()
        if not 0 < token_keep <= 1:
            raise ValueError(f"{type(self).__name__}: token_keep={token_keep}; expected above 0 and at most 1")
        self.token_keep, self.send_half = token_keep, send_half

    @abstractmethod
    def terms(self, left: Encoded, right: Encoded) -> list[Term]:
        """What is summed to the loss."""

    @property
    def global_share(self) -> float:
        """Share of the pooled score where both are mixed."""
        return 0.5

    def shares(self) -> list[float]:
        """Candidates of `global_share` that validation items choose from."""
        return [self.global_share]

    def settle(self, choice: int) -> None:
        """Rank by one of `shares` from now on."""

    def forward(
        self,
        left: Encoded,
        right: Encoded,
        left_rows: Int[Tensor, " a"],
        right_rows: Int[Tensor, " b"],
        relevance: Relevance,
    ) -> Float[Tensor, ""]:
        """Loss of a batch; items of other ranks are further negatives and partners.

        Args:
            left, right: the batch in the shared space
            left_rows, right_rows: which items of the collection these are
            relevance: who belongs to whom; every item needs a partner in the batch
        """
        if ranks() == 1:
            return _loss(self.terms(left, right), None, _truth(relevance, left_rows, right_rows), None)
        everyone = [gather(chosen, self.send_half) for chosen in self._sent(left, right)]
        all_left, all_right = (gather_rows(rows) for rows in (left_rows, right_rows))
        return _loss(
            self.terms(left, everyone[1]),
            self.terms(everyone[0], right),
            _truth(relevance, left_rows, all_right),
            _truth(relevance, all_left, right_rows),
        )

    def _sent(self, left: Encoded, right: Encoded) -> tuple[Encoded, Encoded]:
        if self.token_keep == 1:
            return left, right
        return keep_best(left, right, self.token_keep), keep_best(right, left, self.token_keep)


class GlobalContrast(Objective):
    """CLIP's loss on one vector per item.

    Args:
        temperature: at the start; learned
        send_half: see `Objective`
    """

    score = "global"

    def __init__(self, temperature: float = 0.07, send_half: bool = False):
        super().__init__(send_half=send_half)
        self.temperature = Temperature(temperature)

    def terms(self, left: Encoded, right: Encoded) -> list[Term]:
        logits = self.temperature(global_similarity(left, right))
        return [Term(1.0, logits, logits)]


class TokenContrast(Objective):
    """FILIP's loss: every token picks its best partner on the other side, picks are averaged, padding is no partner.

    Args:
        temperature: at the start; learned
        token_keep, send_half: see `Objective`
    """

    score = "tokens"

    def __init__(self, temperature: float = 0.07, token_keep: float = 1.0, send_half: bool = False):
        super().__init__(token_keep, send_half)
        self.temperature = Temperature(temperature)

    def terms(self, left: Encoded, right: Encoded) -> list[Term]:
        pair = token_similarity(left, right)
        return [Term(1.0, self.temperature(pair.left_to_right), self.temperature(pair.right_to_left))]


class HybridContrast(Objective):
    """The weighted sum of both losses on the same encoders, each with its own temperature; scores are mixed as well.

    The mixed score is `((1 - mix) g pooled + mix t token) / ((1 - mix) g + mix t)` with g and t the learned factors on
    the two, so that each counts by the scale on which it was trained.

    Over frozen encoders a projection for each loss makes an ensemble of two small networks, which ranked better than
    one on emoji (docs/retrieval-learning.md).

    Args:
        token_weight: of the token-wise loss; the global one has the rest
        mix: share of the token-wise score, 0 to 1; null = what validation items choose from 0, 1/4, 1/2, 3/4 and 1
        temperature: at the start, of both; learned
        token_keep, send_half: see `Objective`
        separate_pooled: pooled vectors come from projections of their own on the same encoders; twice the projections
            to learn and to run
    """

    score = "both"
    mix: Tensor

    def __init__(
        self,
        token_weight: float = 0.5,
        mix: float | None = None,
        temperature: float = 0.07,
        token_keep: float = 1.0,
        send_half: bool = False,
        separate_pooled: bool = False,
    ):
        super().__init__(token_keep, send_half)
        self.separate_pooled = separate_pooled
        for name, share in (("token_weight", token_weight), ("mix", mix)):
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"HybridContrast: {name}={share}; expected 0 to 1")
        self.token_weight = token_weight
        self.mixes = MIXES if mix is None else (mix,)
        self.register_buffer("mix", torch.tensor(0.5 if mix is None else mix))
        self.pooled, self.token = Temperature(temperature), Temperature(temperature)

    def terms(self, left: Encoded, right: Encoded) -> list[Term]:
        pooled = self.pooled(global_similarity(left, right))
        pair = token_similarity(left, right)
        return [
            Term(1 - self.token_weight, pooled, pooled),
            Term(self.token_weight, self.token(pair.left_to_right), self.token(pair.right_to_left)),
        ]

    @property
    def global_share(self) -> float:
        return self._share(self.mix.item())

    def shares(self) -> list[float]:
        return [self._share(mix) for mix in self.mixes]

    def settle(self, choice: int) -> None:
        self.mix.fill_(self.mixes[choice])

    def _share(self, mix: float) -> float:
        pooled, token = (1 - mix) * self.pooled.scale.item(), mix * self.token.scale.item()
        return pooled / (pooled + token)


def global_similarity(left: Encoded, right: Encoded) -> Float[Tensor, "a b"]:
    """Cosine of the pooled vectors."""
    return left.global_vector @ right.global_vector.T


def token_similarity(left: Encoded, right: Encoded) -> PairScores:
    """Mean over an item's tokens of the best cosine on the other side, in both directions (K8)."""
    return PairScores(*max_similarity(left.x, right.x, x_keep=left.keep, y_keep=right.keep))


@torch.no_grad()
def _best_anywhere(own: Encoded, other: Encoded) -> Float[Tensor, "b n"]:
    """Of every token, the highest similarity with any real token of the other side."""
    real = other.x[other.keep]
    return torch.stack([(item @ real.T).amax(dim=1) for item in own.x])


def keep_best(own: Encoded, other: Encoded, share: float) -> Encoded:
    """Items reduced to the tokens that match the other side of the batch best.

    Args:
        own: items to reduce
        other: the other side of the local batch
        share: of every item's real tokens, rounded up to whole tokens

    Returns:
        the kept tokens in their order, padded to the most any item keeps
    """
    best = _best_anywhere(own, other).masked_fill(~own.keep, -torch.inf)
    wanted = (own.keep.sum(dim=1) * share).ceil().long()
    most = int(wanted.max())
    order = best.argsort(dim=1, descending=True, stable=True)[:, :most]
    real = torch.arange(most, device=order.device) < wanted[:, None]
    at = order.masked_fill(~real, own.x.shape[1]).sort(dim=1).values.clamp(max=own.x.shape[1] - 1)
    x = own.x.gather(1, at[..., None].expand(-1, -1, own.x.shape[2])).masked_fill(~real[..., None], 0.0)
    return Encoded(Tokens(x, real), own.global_vector)


def _truth(relevance: Relevance, left: Tensor, right: Tensor) -> Bool[Tensor, "a b"]:
    (rows, row_at), (columns, column_at) = (np.unique(side.cpu(), return_inverse=True) for side in (left, right))
    truth = relevance(rows.tolist(), columns.tolist())[row_at][:, column_at]
    return torch.from_numpy(truth).to(left.device)


def _loss(
    rows: list[Term],
    columns: list[Term] | None,
    row_partner: Bool[Tensor, "a b"],
    column_partner: Bool[Tensor, "c d"] | None,
) -> Float[Tensor, ""]:
    """Half the cross entropy of left items over all right ones, half of right items over all left ones."""
    columns = rows if columns is None else columns
    column_partner = row_partner if column_partner is None else column_partner
    total = row_partner.new_zeros((), dtype=torch.float32)
    for row, column in zip(rows, columns, strict=True):
        one_way = partner_cross_entropy(row.left_to_right, row_partner)
        other_way = partner_cross_entropy(column.right_to_left.T, column_partner.T)
        total = total + row.weight * (one_way + other_way) / 2
    return total
