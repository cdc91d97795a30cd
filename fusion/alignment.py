"""Alignment: how far the stand-in for a summary, built from another modality, is from the original."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

Distance = Literal["l1", "mse", "cosine", "kl"]


class Alignment(nn.Module):
    """Distance between an original (no gradient) and its stand-in, averaged over the items that have both.

    l1 and mse are means over the width; cosine is 1 - cos; kl is KL(softmax original || softmax stand-in), summed over
    the width (CMTA, arXiv 2309.12855, section 3.3 and its code's alternatives).

    Args:
        distance: which one
        weight: multiplies the result
    """

    def __init__(self, distance: Distance = "l1", weight: float = 1.0):
        super().__init__()
        if distance not in ("l1", "mse", "cosine", "kl"):
            raise ValueError(f"Alignment: distance={distance!r}; expected l1, mse, cosine or kl")
        self.distance, self.weight = distance, weight

    def forward(
        self, original: Float[Tensor, "b w"], stand_in: Float[Tensor, "b w"], present: Bool[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """0, with zero gradients, when no item has both."""
        original = original.detach().masked_fill(~present[:, None], 0.0)
        stand_in = stand_in.masked_fill(~present[:, None], 0.0)
        per_item = self._per_item(original, stand_in).masked_fill(~present, 0.0)
        return self.weight * per_item.sum() / present.sum().clamp(min=1)

    def _per_item(self, original: Float[Tensor, "b w"], stand_in: Float[Tensor, "b w"]) -> Float[Tensor, " b"]:
        if self.distance == "l1":
            return (original - stand_in).abs().mean(dim=1)
        if self.distance == "mse":
            return (original - stand_in).square().mean(dim=1)
        if self.distance == "cosine":
            return 1 - torch.cosine_similarity(original, stand_in, dim=1)
        return F.kl_div(
            stand_in.log_softmax(dim=1), original.log_softmax(dim=1), reduction="none", log_target=True
        ).sum(1)


def partner_cross_entropy(logits: Float[Tensor, "a b"], partner: Bool[Tensor, "a b"]) -> Float[Tensor, ""]:
    """Cross entropy of every row with its true partners, `1 / number of partners` on each, averaged over rows.

    Args:
        logits: scores of rows with columns, already scaled
        partner: which columns belong to a row

    Raises:
        ValueError: a row has no partner among the columns
    """
    count = partner.sum(dim=1, keepdim=True)
    if not bool((count > 0).all()):
        row = int((count[:, 0] > 0).to(torch.uint8).argmin())
        raise ValueError(f"row {row} has no true partner among {partner.shape[1]} columns; every row needs one")
    return F.cross_entropy(logits, partner.to(logits.dtype) / count)


class Temperature(nn.Module):
    """The learned factor on similarities before a softmax, `exp(log_scale)`.

    Args:
        start: temperature at the beginning; the factor is its inverse (CLIP and FILIP: 0.07)
        largest: bound on the factor
    """

    def __init__(self, start: float = 0.07, largest: float = 100.0):
        super().__init__()
        if not 0 < 1 / largest <= start:
            raise ValueError(f"Temperature: start={start} must be above 0 and at least 1 / largest={largest}")
        self.largest = largest
        self.log_scale = nn.Parameter(torch.tensor(-math.log(start)))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """The factor as it stands."""
        return self.log_scale.exp().clamp(max=self.largest)

    def forward(self, similarity: Float[Tensor, "a b"]) -> Float[Tensor, "a b"]:
        return self.scale * similarity
