"""Laws of the high-level model, the diffusion prior and the low-level pipeline."""

from __future__ import annotations

import pytest
import torch

from tasks.fmri.models.losses import Schedule
from tasks.fmri.models.low_level import LowLevel
from tasks.fmri.models.prior import DiffusionPrior
from tasks.fmri.models.sttm import STTM, Architecture, BrainSizes, match
from tasks.fmri.models.training import BrainBatch, BrainTask, Optimisation, SubjectBatches, TargetTensors

SMALL = Architecture(shared=24, blocks=2, voxel_tokens=4, token_width=16, heads=2, projector=16)
VOXELS = {"01": 30, "02": 17}


def model(tokens: int = 3, text: int | None = 5) -> STTM:
    torch.manual_seed(0)
    return STTM(BrainSizes(VOXELS, tokens, 8, text), SMALL)


def voxels(rng: torch.Generator, n: int = 4) -> dict[str, torch.Tensor]:
    return {subject: torch.randn(n, count, generator=rng) for subject, count in VOXELS.items()}


def test_every_parameter_learns(rng: torch.Generator):
    sttm = model().train()
    said = sttm(voxels(rng))
    (said.projected.square().sum() + said.text.square().sum()).backward()
    idle = {name for name, p in sttm.named_parameters() if p.grad is None or not p.grad.abs().any()}
    assert idle == set()


def test_a_subjects_loss_leaves_the_others_adapter_alone(rng: torch.Generator):
    sttm = model().train()
    sttm({"01": voxels(rng)["01"]}).projected.square().sum().backward()
    assert all(p.grad is None for p in sttm.adapters["02"].parameters())
    assert all(p.grad is not None for p in sttm.trunk.parameters())


def test_permuted_voxels_with_permuted_columns_decode_alike(rng: torch.Generator):
    sttm, x = model().eval(), voxels(rng)
    before = sttm(x)
    order = torch.randperm(30, generator=rng)
    with torch.no_grad():
        first = sttm.adapters["01"].first[0].weight
        first.copy_(first[:, order])
    after = sttm({**x, "01": x["01"][:, order]})
    torch.testing.assert_close(after.projected, before.projected, rtol=1e-5, atol=1e-5)


def test_samples_do_not_see_one_another(rng: torch.Generator):
    sttm, x = model().eval(), voxels(rng)
    together = sttm(x).projected
    alone = torch.cat([sttm({s: rows[i : i + 1]}).projected for s, rows in x.items() for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_frozen_trunk_is_bit_identical_after_fitting_a_new_adapter(rng: torch.Generator):
    sttm = model()
    before = {name: value.clone() for name, value in sttm.state_dict().items()}
    sttm.adapters.add("new", 11, input_dropout=0.65)
    targets = TargetTensors(torch.randn(6, 3, 8, generator=rng), torch.randn(6, 2, 5, generator=rng))
    task = BrainTask(sttm, targets, Schedule(), Optimisation(), new=["new"])
    learning = [p for p in task.parameters() if p.requires_grad]
    own = list(sttm.adapters["new"].parameters())
    assert {id(p) for p in learning} == {id(p) for p in own}
    start = [p.detach().clone() for p in own]
    optimizer = torch.optim.AdamW(learning, 1e-2)
    task.on_train_epoch_start()
    for progress in (0.0, 0.9):
        batch = BrainBatch({"new": torch.randn(6, 11, generator=rng)}, torch.arange(6))
        optimizer.zero_grad()
        task.loss(batch, progress).backward()
        optimizer.step()
    after = sttm.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(not torch.equal(p, q) for p, q in zip(own, start, strict=True))


def test_matching_ranks_a_sample_by_its_own_tokens(rng: torch.Generator):
    sttm = model(text=None).eval()
    said = sttm(voxels(rng))
    scores = match(said, said.projected)
    torch.testing.assert_close(scores, scores.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.diagonal(), torch.ones(8))
    both = model().eval()(voxels(rng))
    torch.testing.assert_close(match(both, both.projected, both.text).diagonal(), torch.full((8,), 2.0))


def test_mixing_stays_within_a_subject(rng: torch.Generator):
    """In the first stage negatives and mixtures are of one subject: a batch's loss is the mean of its subjects'."""
    targets = TargetTensors(torch.randn(6, 3, 8, generator=rng))
    task = BrainTask(model(text=None).eval(), targets, Schedule(mixed_part=0.0), Optimisation(noise=0.0))
    x, which = voxels(rng), torch.tensor([0, 1, 2, 3, 2, 3, 4, 5])
    together = task.loss(BrainBatch(x, which), 0.0)
    alone = [task.loss(BrainBatch({s: x[s]}, which[i * 4 : i * 4 + 4]), 0.0) for i, s in enumerate(x)]
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2)
    assert not torch.isclose(task.loss(BrainBatch(x, which), 0.9), together)


@pytest.mark.parametrize("tokens", [1, 5])
def test_the_prior_learns_what_brain_tokens_say(tokens: int, rng: torch.Generator):
    torch.manual_seed(0)
    prior = DiffusionPrior(tokens, 4, inner=32, heads=2, steps=20)
    optimizer = torch.optim.Adam(prior.parameters(), 3e-3)
    brain = torch.randn(64, tokens, 4, generator=rng)
    target = brain.flip(-1)
    for _ in range(250):
        optimizer.zero_grad()
        prior.loss(brain, target).backward()
        optimizer.step()
    drawn = prior.eval().sample(brain, seed=3)
    assert torch.equal(drawn, prior.sample(brain, seed=3))
    error, shuffled = (drawn - target).square().mean(), (drawn - target.roll(1, 0)).square().mean()
    assert error < 0.5 * shuffled


def test_hidden_brain_tokens_reach_nothing(rng: torch.Generator):
    prior = DiffusionPrior(5, 4, inner=16, heads=2).eval()
    noisy, brain = torch.randn(2, 5, 4, generator=rng), torch.randn(2, 5, 4, generator=rng)
    step = torch.tensor([3, 90])
    keep = torch.tensor([[True, False, True, False, False], [False] * 5])
    spoilt = brain.masked_fill(~keep[..., None], 1e6)
    torch.testing.assert_close(prior(noisy, step, spoilt, keep), prior(noisy, step, brain, keep), rtol=0, atol=0)
    assert (prior.kept_signal.diff() < 0).all()
    guided = prior.sample(brain, guidance=1.0)
    assert not torch.allclose(prior.sample(brain, guidance=2.0), guided)


def low_level() -> LowLevel:
    torch.manual_seed(0)
    return LowLevel(VOXELS, 24, side=8, width=20, blocks=2, inner=8)


def test_no_guidance_is_null_guidance(rng: torch.Generator):
    network, x = low_level().eval(), voxels(rng)
    with torch.no_grad():
        network.no_guide.copy_(torch.randn(24, generator=rng))
    null = network.no_guide.expand(8, -1)
    torch.testing.assert_close(network(x), network(x, null), rtol=0, atol=0)
    assert not torch.allclose(network(x, null + 1), network(x))


def test_a_blind_low_level_path_shows_the_guide_alone(rng: torch.Generator):
    network = low_level().train()
    network.blind = 1.0
    for part in network.modules():
        if hasattr(part, "p"):
            part.p = 0.0
    guide = torch.randn(8, 24, generator=rng)
    torch.testing.assert_close(network(voxels(rng), guide), network(voxels(rng), guide))
    network.blind = 0.0
    assert not torch.allclose(network(voxels(rng), guide), network(voxels(rng), guide))


def test_the_low_level_path_can_fit_latents(rng: torch.Generator):
    network, x = low_level(), voxels(rng)
    latents = torch.randn(8, 4, 8, 8, generator=rng)
    before = float(network.eval().loss(x, None, latents).detach())
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        network.train().loss(x, None, latents).backward()
        optimizer.step()
    assert float(network.eval().loss(x, None, latents).detach()) < 0.9 * before
    with pytest.raises(ValueError, match="latents of side 6; the upsampler doubles twice"):
        LowLevel(VOXELS, 24, side=6)
    with pytest.raises(ValueError, match="inner=6; expected a multiple of 4"):
        LowLevel(VOXELS, 24, side=8, inner=6)


def test_batches_hold_every_subject_and_follow_the_epoch():
    batches = SubjectBatches({"01": 10, "02": 3}, 4, seed=5)
    first = list(batches)
    assert len(first) == len(batches) == 3
    assert sorted(i for rows in first for i in rows["01"]) == list(range(10))
    assert all(0 < len(rows["02"]) == len(set(rows["02"])) for rows in first)
    assert first == list(batches)
    batches.set_epoch(1)
    assert first != list(batches)
