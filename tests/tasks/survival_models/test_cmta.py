"""CMTA: the published variant's names and laws; what the exact one adds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from data.cohort.batch import CohortSizes, PatientBatch
from tasks.survival.models import CMTA
from tasks.survival.models.cmta_weights import from_reference
from tests.tasks.survival_models.cohorts import GROUPS, patients, sizes

BLCA = dict(zip("abcdef", (94, 334, 521, 468, 1496, 479), strict=True))


def reference_shapes(groups: dict[str, int], size: str, fusion: str, patch_width: int = 1024) -> dict[str, list[int]]:
    """Names and shapes of the authors' parameters, from the paper's sizes."""
    shapes: dict[str, list[int]] = {}

    def linear(name: str, out: int, width: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = [out, width]
        if bias:
            shapes[f"{name}.bias"] = [out]

    hidden = 256 if size == "small" else 512
    linear("pathomics_fc.0", hidden, patch_width)
    linear("pathomics_fc.3", 256, hidden)
    widths = [1024, 256] if size == "small" else [1024, 1024, 1024, 256]
    for group, genes in enumerate(groups.values()):
        for layer, (width, out) in enumerate(zip([genes, *widths[:-1]], widths, strict=True)):
            linear(f"genomics_fc.{group}.{layer}.0", out, width)
    for stream in ("pathomics_encoder", "pathomics_decoder", "genomics_encoder", "genomics_decoder"):
        shapes[f"{stream}.cls_token"] = [1, 1, 256]
        for part in ("norm", "layer1.norm", "layer2.norm"):
            shapes[f"{stream}.{part}.weight"] = shapes[f"{stream}.{part}.bias"] = [256]
        for layer in ("layer1", "layer2"):
            linear(f"{stream}.{layer}.attn.to_qkv", 768, 256, bias=False)
            linear(f"{stream}.{layer}.attn.to_out.0", 256, 256)
            shapes[f"{stream}.{layer}.attn.res_conv.weight"] = [8, 1, 33, 1]
        if stream.startswith("patho"):
            for name, side in (("proj", 7), ("proj1", 5), ("proj2", 3)):
                shapes[f"{stream}.pos_layer.{name}.weight"] = [256, 1, side, side]
                shapes[f"{stream}.pos_layer.{name}.bias"] = [256]
    for read in ("P_in_G_Att", "G_in_P_Att"):
        shapes[f"{read}.in_proj_weight"], shapes[f"{read}.in_proj_bias"] = [768, 256], [768]
        linear(f"{read}.out_proj", 256, 256)
    if fusion == "concat":
        linear("mm.0", 256, 512)
        linear("mm.2", 256, 256)
    else:
        for i in (1, 2):
            linear(f"mm.linear_h{i}.0", 32, 256)
            linear(f"mm.linear_z{i}.0", 32, 512)
            linear(f"mm.linear_o{i}.0", 32, 32)
        linear("mm.encoder1.0", 256, 33 * 33)
        linear("mm.encoder2.0", 256, 256)
    linear("classifier", 4, 256)
    return shapes


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("fusion", ["concat", "bilinear"])
def test_every_weight_of_the_authors_has_its_place(size: str, fusion: str, rng: torch.Generator):
    shapes = reference_shapes(GROUPS, size, fusion, patch_width=64)
    theirs = {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    ours = from_reference(theirs)
    model = CMTA(sizes(), variant="published", size=size, fusion=fusion)  # type: ignore[arg-type]
    model.load_state_dict(ours)
    assert sum(v.numel() for v in theirs.values()) == sum(p.numel() for p in model.parameters())
    power_sums = [
        [sum(float((v.double() ** k).sum()) for v in side.values()) for k in (1, 2, 3)] for side in (theirs, ours)
    ]
    assert power_sums[0] == pytest.approx(power_sums[1], rel=1e-9)
    torch.testing.assert_close(model.genes.layers[0].weight[2].T, theirs["genomics_fc.2.1.0.weight"])
    torch.testing.assert_close(model.core.ops[1].to_source.weight, theirs["G_in_P_Att.in_proj_weight"][256:])


def test_the_published_size_on_blca():
    model = CMTA(CohortSizes(1024, BLCA, (), 4), variant="published")
    assert sum(p.numel() for p in model.parameters()) == 8_259_140
    assert sum(p.numel() for p in model.genes.parameters()) == 5_053_952
    assert sum(p.numel() for p in model.core.streams["slide"].parameters()) == 549_136
    assert sum(p.numel() for p in model.core.streams["genes"].parameters()) == 527_120
    assert sum(p.numel() for p in model.core.ops[0].parameters()) == 263_168


def test_foreign_weights_are_named():
    with pytest.raises(ValueError, match=r"'resnet\.conv1' is no weight of the authors' CMTA"):
        from_reference({"resnet.conv1": torch.zeros(1)})


@pytest.mark.parametrize("variant", ["published", "exact"])
def test_alignment_trains_everything_but_the_head(variant: str, rng: torch.Generator):
    torch.manual_seed(0)
    model = CMTA(sizes(), variant=variant).eval()  # type: ignore[arg-type]
    losses = model(patients(rng, 20)).losses
    (losses["align_slide"] + losses["align_genes"]).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("head") or name.endswith("_absent"):
            assert parameter.grad is None or (parameter.grad == 0).all(), name
    blocks = [model.slide, model.genes, *model.core.streams.values(), *model.core.ops]
    assert all(any((p.grad != 0).any() for p in block.parameters()) for block in blocks)


def test_published_patients_of_a_batch_change_nothing_for_one_another(rng: torch.Generator):
    torch.manual_seed(0)
    model = CMTA(sizes(), variant="published").eval()
    lengths = (20, 9, 25, 1, 17)  # squares of 5, 3, 5, 1, 5
    batch = patients(rng, *lengths)
    together = model(batch)
    alone = [model(part) for part in one_by_one(batch, lengths)]
    torch.testing.assert_close(together.logits, torch.cat([part.logits for part in alone]))
    for name, term in together.losses.items():
        torch.testing.assert_close(term, torch.stack([part.losses[name] for part in alone]).mean())


def one_by_one(batch: PatientBatch, lengths: tuple[int, ...]) -> Iterator[PatientBatch]:
    """Batches of one patient without padding."""
    for i, n in enumerate(lengths):
        one = slice(i, i + 1)
        every = ("covariates", "offset", "time", "event", "bins", "genes_present")
        yield replace(
            batch,
            case_id=batch.case_id[one],
            patches=batch.patches[one, :n],
            slide_keep=batch.slide_keep[one, :n],
            grid=None,
            genes={name: values[one] for name, values in batch.genes.items()},
            **{name: getattr(batch, name)[one] for name in every},
        )


def test_published_depends_on_the_order_of_the_file_and_exact_does_not(rng: torch.Generator):
    batch = patients(rng, 60)
    order = torch.randperm(60, generator=rng)
    shuffled = replace(batch, patches=batch.patches[:, order], grid=batch.grid[:, order])
    for variant, moves in (("published", True), ("exact", False)):
        torch.manual_seed(0)
        model = CMTA(sizes(), variant=variant).eval()  # type: ignore[arg-type]
        difference = float((model(batch).logits - model(shuffled).logits).abs().max().detach())
        assert (difference > 1e-3) == moves, (variant, difference)


@pytest.mark.parametrize("lengths", [(70, 30), (40, 70)])
def test_exact_through_landmarks_keeps_its_laws(lengths: tuple[int, int], rng: torch.Generator):
    torch.manual_seed(0)
    model, batch = CMTA(sizes()).eval(), patients(rng, *lengths)
    for reader in model.modules():
        if hasattr(reader, "dense_up_to"):
            reader.landmarks, reader.dense_up_to = 16, 50
    order = torch.randperm(70, generator=rng)
    shuffled = replace(
        batch,
        patches=batch.patches[:, order],
        grid=batch.grid[:, order],
        slide_keep=batch.slide_keep[:, order],
    )
    torch.testing.assert_close(model(shuffled).logits, model(batch).logits, rtol=1e-4, atol=5e-5)
    for i, n in enumerate(lengths):
        alone = replace(
            patients(rng, n),
            patches=batch.patches[i : i + 1, :n],
            grid=batch.grid[i : i + 1, :n],
            genes={name: values[i : i + 1] for name, values in batch.genes.items()},
        )
        torch.testing.assert_close(model(alone).logits[0], model(batch).logits[i], rtol=1e-4, atol=5e-5)


def test_published_needs_both_modalities(rng: torch.Generator):
    model = CMTA(sizes(), variant="published")
    with pytest.raises(ValueError, match="patient P1 has no slides; variant='published' needs both, use 'exact'"):
        model(patients(rng, 4, 0))
    with pytest.raises(ValueError, match="patient P0 has no genes; variant='published' needs both"):
        model(patients(rng, 4, genes=[False]))


@pytest.mark.unchecked
def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="variant='paper'; expected 'exact' or 'published'"):
        CMTA(sizes(), variant="paper")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size='huge'; expected 'small' or 'large'"):
        CMTA(sizes(), size="huge")  # type: ignore[arg-type]
