"""Laws of voxel adapters and of the trunk that subjects share."""

from __future__ import annotations

import pytest
import torch

from encoders.brain import MissingAdapter, ResidualTrunk, SubjectAdapters, VoxelAdapter, VoxelTokens


def adapters() -> SubjectAdapters:
    torch.manual_seed(0)
    return SubjectAdapters({"01": 30, "two.5": 17}, 16)


def test_one_subjects_samples_reach_no_other_adapter(rng: torch.Generator):
    model = adapters().train()
    model({"01": torch.randn(4, 30, generator=rng)}).square().sum().backward()
    assert all(p.grad is None for p in model["two.5"].parameters())
    assert all(p.grad is not None and p.grad.abs().any() for p in model["01"].parameters())


def test_voxels_have_no_order(rng: torch.Generator):
    adapter, x = VoxelAdapter(30, 16).eval(), torch.randn(4, 30, generator=rng)
    order = torch.randperm(30, generator=rng)
    other = VoxelAdapter(30, 16).eval()
    other.load_state_dict(adapter.state_dict())
    with torch.no_grad():
        other.first[0].weight.copy_(adapter.first[0].weight[:, order])
    torch.testing.assert_close(other(x[:, order]), adapter(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other.weight_per_voxel(), adapter.weight_per_voxel()[order])


def test_subjects_together_are_subjects_one_by_one(rng: torch.Generator):
    model = adapters().eval()
    voxels = {"two.5": torch.randn(3, 17, generator=rng), "01": torch.randn(2, 30, generator=rng)}
    alone = torch.cat([model({subject: x}) for subject, x in voxels.items()])
    torch.testing.assert_close(model(voxels), alone, rtol=0, atol=0)


def test_a_trunk_without_blocks_is_the_identity(rng: torch.Generator):
    x = torch.randn(5, 8, generator=rng)
    assert torch.equal(ResidualTrunk(8, 0)(x), x)
    trunk = ResidualTrunk(8, 2).eval()
    with torch.no_grad():
        for block in trunk.blocks:
            block[1].weight.zero_()
            block[1].bias.zero_()
    torch.testing.assert_close(trunk(x), x)


def test_voxel_tokens_are_pieces_of_one_vector(rng: torch.Generator):
    tokens = VoxelTokens(8, 3, 4)
    x = torch.randn(5, 8, generator=rng)
    made = tokens(x)
    assert made.complete
    torch.testing.assert_close(made.x.flatten(1), tokens.spread(x))


def test_a_subject_without_adapter_is_told_to_train_one(rng: torch.Generator):
    model = adapters()
    assert list(model.subjects()) == ["01", "two.5"]
    with pytest.raises(MissingAdapter, match=r"subject 03 has no adapter \(there are adapters of 01, two\.5\); train"):
        model({"03": torch.randn(1, 5, generator=rng)})
    with pytest.raises(ValueError, match="subject 01: 29 voxels, its adapter was trained on 30"):
        model({"01": torch.randn(1, 29, generator=rng)})
    with pytest.raises(ValueError, match="subject 01 has an adapter already"):
        model.add("01", 30)
    with pytest.raises(ValueError, match="voxels=0"):
        model.add("04", 0)


def test_a_new_adapter_changes_nobody_elses():
    model = adapters()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.add("keys", 9)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert "keys" in model
