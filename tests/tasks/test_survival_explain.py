"""Explaining a patient: definitions of contribution and attention, and a page for every kind of patient."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data.cohort.batch import CohortSizes, PatientBatch
from data.slides.catalogue import find_slides
from data.slides.feature_files import Bag
from tasks.survival import explain_figures as figures
from tasks.survival.explain import as_json, compose, write
from tasks.survival.explanation import POOLING, Attention, Contribution, Explanation, contributions, patch_attention
from tasks.survival.losses import DiscreteHazard
from tasks.survival.models.abmil import ABMIL
from tasks.survival.models.base import Prediction, SurvivalModel
from tasks.survival.models.cmta import CMTA
from tasks.survival.models.snn import SNN
from tests.tasks.pages import Page

PATCHES, SIZES = 12, CohortSizes(8, {"A": 3, "B": 5}, ("age",), 4)
LOSS = DiscreteHazard(bins=4)


@pytest.fixture
def patient(rng: torch.Generator) -> PatientBatch:
    cells = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(3), indexing="ij"), -1).reshape(1, PATCHES, 2)
    return PatientBatch(
        case_id=["P1"],
        patches=torch.randn(1, PATCHES, 8, generator=rng),
        slide_keep=torch.ones(1, PATCHES, dtype=torch.bool),
        grid=256.0 * cells,
        genes={name: torch.randn(1, size, generator=rng) for name, size in SIZES.gene_groups.items()},
        genes_present=torch.ones(1, dtype=torch.bool),
        covariates=torch.full((1, 1), 0.7),
        offset=torch.zeros(1),
        time=torch.ones(1),
        event=torch.ones(1, dtype=torch.bool),
        bins=torch.zeros(1, dtype=torch.long),
    )


class Additive(SurvivalModel):
    """A hazard that is a sum of what is there, so every contribution is known."""

    def forward(self, batch: PatientBatch) -> Prediction:
        there = batch.slide_keep.any(dim=1) * 1.0 + batch.genes_present * 2.0 + batch.covariates[:, 0] + batch.offset
        return Prediction(there[:, None].expand(-1, self.sizes.outputs))


class Identity(DiscreteHazard):
    """The first logit is the risk."""

    def risk(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, 0]


def test_in_an_additive_model_a_contribution_is_the_term_itself(patient: PatientBatch):
    batch = replace(patient, offset=torch.full((1,), -0.25))
    risk, found = contributions(Additive(SIZES), Identity(bins=4), batch)
    assert risk == pytest.approx(3.45)
    assert {c.name: c.change for c in found} == pytest.approx(
        {"slide": 1.0, "genes": 2.0, "age": 0.7, "linear baseline": -0.25}
    )


def test_what_a_patient_does_not_have_is_not_left_out(patient: PatientBatch):
    bare = replace(patient.without("slide"), covariates=torch.zeros(1, 1))
    _, found = contributions(Additive(SIZES), Identity(bins=4), bare)
    assert [c.name for c in found] == ["genes"]


def test_contributions_are_of_one_patient(patient: PatientBatch):
    with pytest.raises(ValueError, match="got 2 patients, expected one"):
        contributions(Additive(SIZES), LOSS, replace(patient, case_id=["P1", "P2"]))


def test_a_model_that_insists_on_a_modality_says_so_instead_of_a_number(patient: PatientBatch):
    torch.manual_seed(0)
    model = CMTA(SIZES, variant="published").eval()
    _, found = contributions(model, LOSS, patient)
    notes = {c.name: c.note for c in found}
    assert "has no slides; variant='published' needs both" in notes["slide"]
    assert np.isnan(next(c.change for c in found if c.name == "genes"))


@pytest.mark.parametrize("variant", ["exact", "published"])
def test_attention_of_gene_groups_is_a_distribution_over_the_real_patches(patient: PatientBatch, variant: str):
    torch.manual_seed(0)
    model = CMTA(SIZES, variant=variant).eval()  # type: ignore[arg-type]
    found = patch_attention(model, patient)
    assert found is not None
    assert found.readers == ["A", "B"]
    assert found.weights.shape == (2, PATCHES)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-5)


def test_looking_changes_nothing(patient: PatientBatch):
    torch.manual_seed(0)
    model = CMTA(SIZES).eval()
    with torch.no_grad():
        before = model(patient).logits
        patch_attention(model, patient)
        assert torch.equal(model(patient).logits, before)


def test_attention_follows_the_patches_wherever_the_file_puts_them(patient: PatientBatch, rng: torch.Generator):
    torch.manual_seed(0)
    model = CMTA(SIZES).eval()
    order = torch.randperm(PATCHES, generator=rng)
    assert patient.grid is not None
    shuffled = replace(patient, patches=patient.patches[:, order], grid=patient.grid[:, order])
    ours, theirs = patch_attention(model, patient), patch_attention(model, shuffled)
    assert ours is not None
    assert theirs is not None
    np.testing.assert_allclose(theirs.weights, ours.weights[:, order.numpy()], atol=1e-6)


def test_a_pooling_shows_its_own_weights(patient: PatientBatch):
    torch.manual_seed(0)
    model = ABMIL(SIZES).eval()
    found = patch_attention(model, patient)
    assert found is not None
    tokens = model.slide(patient.patches, patient.slide_keep, patient.grid)
    assert found.site == POOLING
    np.testing.assert_allclose(found.weights, model.pooling.weights(tokens).detach().numpy(), rtol=1e-6)


def test_without_a_slide_or_a_reader_of_it_there_is_nothing_to_see(patient: PatientBatch):
    assert patch_attention(CMTA(SIZES).eval(), patient.without("slide")) is None
    assert patch_attention(SNN(SIZES).eval(), patient) is None


def test_focus_runs_from_everywhere_alike_to_one_patch():
    one = np.eye(1, 5)[0]
    attention = Attention("s", ["even", "one"], np.stack([np.full(5, 0.2), one]))
    assert attention.focus == pytest.approx([0.0, 1.0])
    assert attention.mean.mean() == pytest.approx(1.0)
    assert attention.order == [0, 1, 2, 3, 4]


def explanation(grid: bool = True, slides: int = 1, readers: int = 2) -> Explanation:
    rng = np.random.default_rng(0)
    corners = 256.0 * torch.cartesian_prod(torch.arange(5), torch.arange(6))
    weights = rng.dirichlet(np.ones(30), size=readers)
    weights[:, 17] += 1.0
    weights /= weights.sum(axis=1, keepdims=True)
    of_slide = torch.arange(30) % slides
    bag = Bag(torch.zeros(30, 8), corners if grid else None, of_slide, tuple(f"S<{i}>" for i in range(slides)))
    changes = [Contribution("slide", 0.2), Contribution("genes", -0.1), Contribution("age", float("nan"), "needed")]
    attention = Attention("genes <- slide", [f"GROUP_{i}<" for i in range(readers)], weights)
    return Explanation("P<script>/1", "cmta/fold0-seed1", True, -1.0, rng.normal(-2, 1, 40), changes, attention, bag)


@pytest.mark.parametrize(
    "case", ["whole", "two slides", "many groups", "no grid", "no attention", "one patch", "alone"]
)
def test_every_patient_has_a_page(case: str, tmp_path: Path):
    found = explanation()
    if case == "two slides":
        found = explanation(slides=2)
    elif case == "many groups":
        found = explanation(readers=9)
    elif case == "no grid":
        found = explanation(grid=False)
    elif case == "no attention":
        found = replace(found, attention=None, bag=None)
    elif case == "one patch":
        bag = Bag(torch.zeros(1, 8), torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), ("S",))
        found = replace(found, bag=bag, attention=Attention("s", ["A", "B"], np.ones((2, 1))))
    elif case == "alone":
        found = replace(found, others=np.zeros(0), contributions=[])
    page = Page(write(found, tmp_path / "out").read_text())
    assert page.breaches == []
    assert "Patient P<script>/1" in page.words
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"explain.html", "explanation.json"} <= written
    assert ("attention.svg" in written) == (case not in {"no grid", "no attention"})
    assert ("attention.npz" in written) == (case != "no attention")


def test_the_json_holds_the_numbers_and_no_nan():
    said = json.loads(json.dumps(as_json(explanation()), allow_nan=False))
    assert said["attention"]["top_patches"][0]["patch"] == 17
    assert said["attention"]["top_patches"][0]["x"] == 512.0
    most, least = (said["attention"][f"{which}_patches"] for which in ("top", "bottom"))
    assert least[0]["times_mean"] <= least[1]["times_mean"] < 1 < most[0]["times_mean"]
    assert said["contributions"][2] == {"name": "age", "change": None, "note": "needed"}


def test_a_model_that_has_seen_the_patient_is_not_called_a_prediction():
    assert "trained on this patient" in compose(replace(explanation(), held_out=False), []).lead
    assert "trained on this patient" not in compose(explanation(), []).lead


def test_the_map_shows_each_patch_where_it_lies():
    found = explanation()
    assert found.bag is not None
    assert found.attention is not None
    view = figures.view_of(found.bag, found.attention.mean, {})
    assert view is not None
    assert view.side == 256
    heat = view.heat(found.attention.mean)
    peak = np.unravel_index(np.nanargmax(heat), heat.shape)
    row, column = (int(at * view.thumb.down_x // 256) for at in peak)
    assert (column, row) == (17 // 6, 17 % 6)


def test_qupath_gets_every_patch_of_every_slide_with_its_attention(tmp_path: Path):
    found = explanation(slides=2)
    assert found.bag is not None
    assert found.bag.grid is not None
    assert found.attention is not None
    write(replace(found, bag=replace(found.bag, sides=(300.0, None))), tmp_path)
    for index, wide in ((0, 300), (1, 256)):
        said = json.loads((tmp_path / f"attention-S_{index}_.geojson").read_text())["features"]
        here = np.flatnonzero(found.bag.slide.numpy() == index)
        corners = np.array([each["geometry"]["coordinates"][0] for each in said])
        np.testing.assert_array_equal(corners[:, 0], found.bag.grid.numpy()[here])
        assert (corners[:, 2] - corners[:, 0] == wide).all(), "the side the file says, else the distance of neighbours"
        values = [each["properties"]["measurements"]["attention"] for each in said]
        np.testing.assert_allclose(values, found.attention.mean[here])
        brightness = [sum(each["properties"]["classification"]["color"]) for each in said]
        assert np.argmax(brightness) == np.argmax(values)


def test_a_real_slide_lies_under_its_map(shared_data: Path, tmp_path: Path):
    found = explanation()
    assert found.bag is not None
    named = replace(found.bag, slides=("CMU-1-Small-Region",))
    files = {slide.slide_id: slide.path for slide in find_slides(shared_data / "slides")}
    write(replace(found, bag=named), tmp_path, slides=files)
    assert (tmp_path / "top-patches.svg").is_file()
    assert (tmp_path / "bottom-patches.svg").is_file()
    drawn = (tmp_path / "attention.svg").read_text()
    assert drawn.count("<image") == 3
    assert " mm<" in drawn
    page = Page((tmp_path / "explain.html").read_text())
    assert page.breaches == []
    assert "each is 128 µm wide" in page.words
