"""Laws of every survival model, and those of each paper's mechanism."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from data.cohort.batch import CohortSizes, PatientBatch
from tasks.survival.head import GatedKronecker, SurvivalHead
from tasks.survival.losses import CoxPartialLikelihood, DiscreteHazard
from tasks.survival.models import (
    ABMIL,
    CMTA,
    MCAT,
    SNN,
    CoreFusion,
    LateFusion,
    OffsetFusion,
    Porpoise,
    SurvivalModel,
    SurvPath,
    TransMIL,
)
from tests.tasks.survival_models.cohorts import patients, sizes

MODELS: dict[str, Callable[[CohortSizes], SurvivalModel]] = {
    "ABMIL": lambda s: ABMIL(s, width=32, hidden=16),
    "CMTA": CMTA,
    "CoreFusion": lambda s: CoreFusion(s, width=32, gene_hidden=16),
    "LateFusion": LateFusion,
    "MCAT": lambda s: MCAT(s, width=32),
    "OffsetFusion": OffsetFusion,
    "Porpoise": lambda s: Porpoise(s, width=32, patch_hidden=32),
    "SNN": lambda s: SNN(s, width=32),
    "SurvPath": lambda s: SurvPath(s, width=32),
    "TransMIL": lambda s: TransMIL(s, width=32),
}
SLIDES_ALONE = {"ABMIL", "TransMIL"}
GENES_ALONE = {"SNN"}


def build(name: str, outputs: int = 4) -> SurvivalModel:
    torch.manual_seed(0)
    model = MODELS[name](sizes(outputs)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def only(batch: PatientBatch, i: int) -> PatientBatch:
    """One patient, unpadded."""
    n = int(batch.slide_keep[i].sum())
    row = slice(i, i + 1)
    return PatientBatch(
        batch.case_id[row],
        batch.patches[row, :n],
        batch.slide_keep[row, :n],
        None if batch.grid is None else batch.grid[row, :n],
        {name: values[row] for name, values in batch.genes.items()},
        batch.genes_present[row],
        batch.covariates[row],
        batch.offset[row],
        batch.time[row],
        batch.event[row],
        batch.bins[row],
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_is_its_patients_one_by_one(name: str, rng: torch.Generator):
    model, batch = build(name), patients(rng, 17, 30, 0, 1, genes=[True, False, True, True])
    together = model(batch).logits
    for i in range(4):
        torch.testing.assert_close(model(only(batch, i)).logits[0], together[i], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("garbage", [1e9, float("nan")])
@pytest.mark.parametrize("name", MODELS)
def test_absent_values_never_matter(name: str, garbage: float, rng: torch.Generator):
    model, batch = build(name), patients(rng, 17, 30, 0, 1, genes=[True, False, True, True])
    absent = ~batch.genes_present[:, None]
    spoilt = replace(
        batch,
        patches=batch.patches.masked_fill(~batch.slide_keep[..., None], garbage),
        grid=batch.grid.masked_fill(~batch.slide_keep[..., None], garbage),
        genes={group: values.masked_fill(absent, garbage) for group, values in batch.genes.items()},
    )
    torch.testing.assert_close(model(spoilt).logits, model(batch).logits, rtol=0, atol=0)
    model.train()
    prediction = model(spoilt)
    DiscreteHazard()(prediction, batch).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("grid", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_patches_in_the_file_does_not_matter(name: str, grid: bool, rng: torch.Generator):
    model, batch = build(name), patients(rng, 30, 21, grid=grid)
    order = torch.randperm(30, generator=rng)
    shuffled = replace(
        batch,
        patches=batch.patches[:, order],
        slide_keep=batch.slide_keep[:, order],
        grid=None if batch.grid is None else batch.grid[:, order],
    )
    torch.testing.assert_close(model(shuffled).logits, model(batch).logits, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns(name: str, outputs: int, rng: torch.Generator):
    batch = patients(rng, 17, 30, 0, 5, 0, 9, genes=[True, False, False, True, True, True])
    model = build(name, outputs).train()
    loss = DiscreteHazard() if outputs == 4 else CoxPartialLikelihood()
    loss(model(batch), batch).backward()
    idle = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()}
    # The softmax does not see what all scores share, a pool of one token has nothing to weigh, nobody here lacks age.
    blind = ("to_source.bias", "score.bias", "absent", "absent.slide", "absent.covariates")
    if outputs == 1:  # nor does the partial likelihood see what all risks share
        blind += tuple(n for n, p in model.named_parameters() if n.startswith("head.") and p.shape == (1,))
    assert not {n for n in idle if not n.endswith(blind) and ".covariates.summary." not in n}


@pytest.mark.parametrize("modality", ["slide", "genes"])
@pytest.mark.parametrize("name", MODELS)
def test_a_modality_left_out_is_data(name: str, modality: str, rng: torch.Generator):
    model, batch = build(name), patients(rng, 17, 30)
    without = model(batch.without(modality)).logits  # type: ignore[arg-type]
    assert torch.isfinite(without).all()
    unused = (name in SLIDES_ALONE and modality == "genes") or (name in GENES_ALONE and modality == "slide")
    assert torch.equal(without, model(batch).logits) == unused


@pytest.mark.parametrize("name", [n for n in MODELS if n not in {"SNN", "CoreFusion", "LateFusion", "OffsetFusion"}])
def test_a_cohort_without_slides_is_refused_by_name(name: str):
    with pytest.raises(ValueError, match=r"reads slides, but the cohort has none; give cohort\.slides=FOLDER"):
        MODELS[name](replace(sizes(), patch_width=None))


def test_a_cohort_without_genes_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"SNN reads genes, but the cohort has none; give a table with genes \(cohort\.table"
    ):
        SNN(replace(sizes(), gene_groups={}))


def test_genes_and_age_alone_go_through_the_core(rng: torch.Generator):
    model = CoreFusion(replace(sizes(1), patch_width=None), reads=["genes <- covariates", "genes <- genes"]).eval()
    none = torch.zeros(2, 0, dtype=torch.bool)
    batch = patients(rng, 1, 1, genes=[True, False])
    batch = replace(batch, patches=torch.zeros(2, 0, 1), slide_keep=none, grid=None)
    before = model(batch).logits
    older = model(replace(batch, covariates=batch.covariates + 1)).logits
    assert (before != older).all()
    with pytest.raises(ValueError, match="no stream 'slide' in this cohort; it has genes, covariates"):
        CoreFusion(replace(sizes(), patch_width=None), streams=["slide"])


def test_abmil_does_not_count_copies(rng: torch.Generator):
    model, batch = build("ABMIL"), patients(rng, 20)
    doubled = replace(batch, patches=batch.patches.repeat(1, 2, 1), slide_keep=batch.slide_keep.repeat(1, 2), grid=None)
    torch.testing.assert_close(model(doubled).logits, model(batch).logits, rtol=1e-5, atol=1e-6)


def test_mcat_equal_genes_find_the_same_in_the_slide(rng: torch.Generator):
    model, batch = build("MCAT"), patients(rng, 20)
    genes = model.genes(batch.genes, batch.genes_present)
    equal = genes.with_x(genes.x[:, :1].expand(-1, 6, -1))
    slide = model.slide(batch.patches, batch.slide_keep)
    found = model.core.ops[0](equal, slide).y
    torch.testing.assert_close(found, found[:, :1].expand(-1, 6, -1))


def test_survpath_patches_do_not_see_one_another(rng: torch.Generator):
    model, batch = build("SurvPath"), patients(rng, 20)
    moved = batch.patches.clone()
    moved[0, 3] += 5.0
    genes = model.genes(batch.genes, batch.genes_present)
    rows = []
    for patches in (batch.patches, moved):
        slide = model._drawn(replace(batch, patches=patches))
        fused = model.core({"slide": slide.with_x(model.norm(model.slide(slide.x))), "pathways": genes})
        rows.append(fused.tokens["slide_read"].x[0])
    others = torch.arange(20) != 3
    torch.testing.assert_close(rows[1][others], rows[0][others], rtol=0, atol=0)
    assert (rows[1][3] != rows[0][3]).any()


def test_survpath_without_patches_is_self_attention_of_pathways(rng: torch.Generator):
    model, batch = build("SurvPath"), patients(rng, 20).without("slide")
    genes = model.genes(batch.genes, batch.genes_present)
    slide = model._drawn(batch)
    fused = model.core({"slide": slide.with_x(model.slide(slide.x)), "pathways": genes})
    reader, after = model.core.ops[0], model.core.streams["pathways_read"].blocks[0]
    torch.testing.assert_close(fused.tokens["pathways_read"].x, after(genes.with_x(reader(genes).y)).x)


def test_survpath_draws_patches_only_while_training(rng: torch.Generator):
    model, batch = SurvPath(sizes(), width=32, sample=8), patients(rng, 30, 5)
    drawn = model.train()._drawn(batch)
    assert drawn.keep.sum(1).tolist() == [8, 5]
    assert model.eval()._drawn(batch).keep.sum(1).tolist() == [30, 5]


@pytest.mark.unchecked
def test_open_gates_give_the_outer_product(rng: torch.Generator):
    fusion = GatedKronecker(16, reduction=4).eval()
    with torch.no_grad():
        for gate in fusion.gates:
            gate.gate.bias.fill_(100.0)
            gate.out.weight.copy_(torch.eye(4))
            gate.out.bias.zero_()
    one, other = torch.randn(3, 16, generator=rng), torch.randn(3, 16, generator=rng)
    a, b = (
        torch.cat([gate.value(x).relu(), torch.ones(3, 1)], 1)
        for gate, x in zip(fusion.gates, (one, other), strict=True)
    )
    torch.testing.assert_close(fusion.product(one, other), (a[:, :, None] * b[:, None]).flatten(1))
    with pytest.raises(ValueError, match="fusion='bilinear' joins 2 summaries, got 3; use 'concat'"):
        SurvivalHead(3, 16, 4, "bilinear")
    with pytest.raises(ValueError, match="fusion='sum'; expected 'concat' or 'bilinear'"):
        SurvivalHead(2, 16, 4, "sum")  # type: ignore[arg-type]


def test_snn_l1_is_over_all_parameters_while_training(rng: torch.Generator):
    model, batch = SNN(sizes(), l1=0.5), patients(rng, 1, 1)
    total = sum(float(p.detach().abs().sum()) for p in model.parameters())
    assert float(model.train()(batch).losses["l1"].detach()) == pytest.approx(total / 2, rel=1e-5)
    assert model.eval()(batch).losses == {}


@pytest.mark.parametrize("inner", ["core", "cmta", "mcat", "abmil", "snn"])
def test_the_offset_model_starts_as_the_baseline(inner: str, rng: torch.Generator):
    batch = patients(rng, 17, 30, 0, genes=[True, False, True])
    torch.manual_seed(0)
    model = OffsetFusion(sizes(1), inner=inner)  # type: ignore[arg-type]
    torch.testing.assert_close(model(batch).logits[:, 0], batch.offset, rtol=0, atol=0)
    model = OffsetFusion(sizes(4), inner=inner)  # type: ignore[arg-type]
    risk = DiscreteHazard().risk(model(batch).logits)
    assert risk.argsort().tolist() == batch.offset.argsort().tolist()


@pytest.mark.unchecked
def test_the_offset_model_moves_nobody_further_than_its_reach(rng: torch.Generator):
    batch, model = patients(rng, 17, 30), OffsetFusion(sizes(1), reach=0.5)
    with torch.no_grad():
        model.network.last_layer().weight.normal_(std=100.0)
    moved = model.eval()(batch)
    assert ((moved.logits[:, 0] - batch.offset).abs() <= 0.5 + 1e-5).all()
    assert float(moved.losses["shrinkage"].detach()) > 0
    with pytest.raises(ValueError, match="inner='resnet'; expected one of core, cmta"):
        OffsetFusion(sizes(), inner="resnet")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reach=0 above 0"):
        OffsetFusion(sizes(), reach=0)
