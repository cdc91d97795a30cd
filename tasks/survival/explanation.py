"""Why one patient has this risk: what each modality changes when it is left out, and where the genes look on the slide.

Attention says where a model looked, not why; what a modality is worth to a patient is measured by leaving it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from data.cohort.batch import PatientBatch
from data.slides.feature_files import Bag
from fusion.observe import Ask, observe, sites
from fusion.summary import GatedPooling
from fusion.tokens import Tokens
from tasks.survival.losses import SurvivalLoss
from tasks.survival.models.base import SurvivalModel

GENES_READ_SLIDE = re.compile(r"^(\w+ = )?genes <- slide(/0)?$")
POOLING = "pooling over patches"


@dataclass(frozen=True)
class Contribution:
    """What one input changes.

    Attributes:
        name: slide, genes, a covariate, or the linear baseline's offset
        change: risk with it minus risk without it; positive = it raises the risk; NaN when the model needs it
        note: why there is no number
    """

    name: str
    change: float
    note: str = ""


@dataclass(frozen=True)
class Attention:
    """Who looked where.

    Attributes:
        site: the read it comes from
        readers: gene groups, or the one pooling
        weights: of each reader over the patches of the bag, each row sums to 1
    """

    site: str
    readers: list[str]
    weights: Float[np.ndarray, "g p"]

    @property
    def mean(self) -> Float[np.ndarray, " p"]:
        """Over the readers, relative to looking everywhere alike: 1 = as much as any patch."""
        return self.weights.mean(axis=0) * self.weights.shape[1]

    @property
    def focus(self) -> Float[np.ndarray, " g"]:
        """How concentrated each reader is: 0 = everywhere alike, 1 = one patch (1 - entropy / log p)."""
        patches = self.weights.shape[1]
        if patches < 2:
            return np.ones(len(self.weights))
        logs = np.log(self.weights, out=np.zeros_like(self.weights), where=self.weights > 0)
        return 1 + (self.weights * logs).sum(axis=1) / np.log(patches)

    @property
    def order(self) -> list[int]:
        """Patches from the one looked at most to the one looked at least."""
        return np.argsort(-self.mean, kind="stable").tolist()


@dataclass(frozen=True)
class Explanation:
    """One patient, seen by one trained model.

    Attributes:
        case_id: the patient
        unit: the model, as `arm/fold0-seed1`
        held_out: whether that model was trained without the patient
        risk: as the loss gives it; higher = worse
        others: risks of the patients the unit scored, for scale
        contributions: one for each input the patient has
        attention: None when there is no slide or the model has no softmax read of it
        bag: the patches; None without slides
    """

    case_id: str
    unit: str
    held_out: bool
    risk: float
    others: Float[np.ndarray, " n"]
    contributions: list[Contribution]
    attention: Attention | None
    bag: Bag | None

    @property
    def share_below(self) -> float:
        """Share of the scored patients with a lower risk."""
        others = self.others[np.isfinite(self.others)]
        return float((others < self.risk).mean()) if len(others) else float("nan")


@torch.no_grad()
def contributions(model: SurvivalModel, loss: SurvivalLoss, batch: PatientBatch) -> tuple[float, list[Contribution]]:
    """Risk of one patient, and its change by each input the patient has.

    Leaving a covariate out means the training mean; leaving the offset out means 0, the risk of an average patient.

    Args:
        model: in evaluation mode
        loss: turns logits into a risk
        batch: one patient
    """
    if len(batch) != 1:
        raise ValueError(f"contributions: got {len(batch)} patients, expected one")
    risk = float(loss.risk(model(batch).logits)[0])
    found = []
    for name, without in _ablations(batch, model.sizes.covariates):
        try:
            left = float(loss.risk(model(without).logits)[0])
        except ValueError as error:
            # A model may insist on a modality (CMTA as published); that is an answer, not a failure.
            found.append(Contribution(name, float("nan"), str(error)))
        else:
            found.append(Contribution(name, risk - left))
    return risk, found


@torch.no_grad()
def patch_attention(model: SurvivalModel, batch: PatientBatch) -> Attention | None:
    """Weights of gene groups over the patient's patches, or of a pooling; None when there is nothing to see.

    Args:
        model: in evaluation mode
        batch: one patient
    """
    patches = int(batch.slide_keep[0].sum())
    if not patches:
        return None
    groups = list(model.sizes.gene_groups)
    for site in sites(model):
        if GENES_READ_SLIDE.match(site) and bool(batch.genes_present[0]):
            with observe(model, {site: Ask(rows=range(len(groups)))}) as seen:
                model(batch)
            weights = seen[site][0]["rows"][0].mean(dim=0)
            return Attention(site, groups, _folded(weights, patches).double().numpy())
    pooled = _pooling(model, batch, patches)
    return None if pooled is None else Attention(POOLING, ["all"], pooled.double().numpy())


def _ablations(batch: PatientBatch, covariates: tuple[str, ...]) -> Iterator[tuple[str, PatientBatch]]:
    if bool(batch.slide_keep.any()):
        yield "slide", batch.without("slide")
    if bool(batch.genes_present.any()):
        yield "genes", batch.without("genes")
    for place, name in enumerate(covariates):
        values = batch.covariates.clone()
        values[:, place] = 0.0
        if not torch.equal(values, batch.covariates):
            yield name, replace(batch, covariates=values)
    if bool(batch.offset.any()):
        yield "linear baseline", replace(batch, offset=torch.zeros_like(batch.offset))


def _folded(weights: Float[Tensor, "g s"], patches: int) -> Float[Tensor, "g p"]:
    """Give what repeated patches received (CMTA as published lays the first ones out again) to the originals."""
    folded = weights[:, :patches].clone()
    again = weights[:, patches:]
    folded[:, : again.shape[1]] += again
    return folded


def _pooling(model: nn.Module, batch: PatientBatch, patches: int) -> Float[Tensor, "1 p"] | None:
    """Weights of the first gated pooling that sees every patch."""
    seen: list[Tensor] = []

    def keep(pooling: nn.Module, args: tuple[Tokens, ...]) -> None:
        if isinstance(pooling, GatedPooling) and int(args[0].keep[0].sum()) == patches:
            seen.append(pooling.weights(args[0])[:, args[0].keep[0]])

    handles = [m.register_forward_pre_hook(keep) for m in model.modules() if isinstance(m, GatedPooling)]
    try:
        model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen[0] if seen else None
