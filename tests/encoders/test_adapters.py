"""Encoders of the other rooms with raw items: the same tokens as there, and a width that is named when it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from encoders.adapters import BrainTokens, GeneTokens, SlideTokens, VectorTokens


def test_vectors_pass_as_they_are():
    encoder = VectorTokens(3)
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    torch.testing.assert_close(encoder(rows).x[:, 0], torch.from_numpy(rows))
    assert encoder(np.stack([rows, rows])).x.shape == (2, 2, 3)
    assert encoder([rows, rows[:1]]).keep.tolist() == [[True, True], [True, False]]
    with pytest.raises(ValueError, match="vectors are 3 wide, this encoder reads width=4"):
        VectorTokens(4)(rows)


def test_slides_are_read_patch_by_patch_and_long_ones_evenly():
    torch.manual_seed(0)
    encoder = SlideTokens(4, (8,), patches=5).eval()
    short, long = np.ones((3, 4), np.float32), np.arange(36, dtype=np.float32).reshape(9, 4)
    tokens = encoder([short, long])
    assert tokens.keep.sum(dim=1).tolist() == [3, 5]
    spread = encoder([long[[0, 2, 4, 6, 8]]])
    torch.testing.assert_close(tokens.x[1], spread.x[0])
    assert encoder.cut([short, long]) == {1: "slide of 9 patches: 5 of them, evenly spread, are read"}
    with pytest.raises(ValueError, match="patch features are 3 wide, this encoder reads patch_width=4"):
        encoder([short[:, :3]])


def test_genes_are_scaled_on_what_was_learnt_and_gaps_are_the_mean():
    torch.manual_seed(0)
    encoder = GeneTokens({"a": [0, 2], "b": [1]}, (8,), dropout=0.0).eval()
    training = np.array([[1.0, 5, 2], [3, 5, 6], [np.nan, 5, 4]], np.float32)
    encoder.learn(training)
    mean = encoder(np.array([[2.0, 5, 4]], np.float32)).x
    torch.testing.assert_close(encoder(np.array([[np.nan, 9, 4]], np.float32)).x, mean)
    absent = encoder(np.full((1, 3), np.nan, np.float32))
    assert not absent.present.any()
    assert encoder.labels(training[:1]) == [["a", "b"]]
    with pytest.raises(ValueError, match="items have 2 genes; the groups name 3"):
        encoder(training[:, :2])


def test_a_number_of_genes_is_as_many_groups_of_one():
    encoder = GeneTokens(3, (8,), dropout=0.0).eval()
    assert encoder(np.ones((2, 3), np.float32)).x.shape == (2, 3, 8)
    assert encoder.labels(np.ones((1, 3), np.float32)) == [["gene 0", "gene 1", "gene 2"]]
    with pytest.raises(ValueError, match="groups name no gene"):
        GeneTokens(0)


def test_voxels_become_tokens():
    encoder = BrainTokens(10, tokens=3, width=4, shared=8).eval()
    assert encoder(np.zeros((2, 10), np.float32)).x.shape == (2, 3, 4)
    with pytest.raises(ValueError, match="samples have 9 voxels, this encoder reads voxels=10"):
        encoder(np.zeros((2, 9), np.float32))
