"""Generated scenes: the caption is the truth, every scene another, and the test is combinations never seen."""

from __future__ import annotations

import numpy as np
import pytest

from data.simulate.scenes import COLOURS, PLACES, SHAPES, Scenes, Thing, covered, painted


def test_the_caption_says_what_the_picture_shows():
    source = Scenes(scenes=60, side=32, noise=0.0, most=2)
    pairs = source.load()
    pictures, captions = pairs.left.load(range(60)), pairs.right.load(range(60))
    for things, picture, caption in zip(source.truth, pictures, captions, strict=True):
        assert caption == ", ".join(thing.words for thing in things)
        for place in range(len(PLACES)):
            y, x = (16 * part for part in divmod(place, 2))
            seen = picture[:, y : y + 16, x : x + 16].reshape(3, -1)
            thing = next((t for t in things if t.place == place), None)
            assert (seen == 235).all() == (thing is None)
            if thing is not None:
                assert (seen == np.array(COLOURS[thing.colour])[:, None]).all(axis=0).any()


def test_scenes_differ_and_what_is_tested_was_not_learnt():
    source = Scenes(scenes=300)
    pairs = source.load()
    seen = {frozenset(thing.words for thing in things) for things in source.truth}
    assert len(seen) == 300
    content = [tuple(sorted((t.colour, t.shape) for t in things)) for things in source.truth]
    of = {split: {content[row] for row in pairs.rows(split)[0]} for split in ("train", "val", "test")}
    assert all(of.values())
    assert not of["train"] & of["test"]
    assert not of["train"] & of["val"]


def test_the_seed_decides_and_rows_do_not_depend_on_the_batch():
    one, other = Scenes(scenes=30).load(), Scenes(scenes=30).load()
    np.testing.assert_array_equal(one.left.load([7, 3]), other.left.load([7, 3]))
    np.testing.assert_array_equal(one.left.load([3])[0], one.left.load([7, 3])[1])
    assert Scenes(scenes=30, seed=1).load().right.load([0]) != one.right.load([0])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_larger_shape_covers_more(shape: str):
    small, large = covered(shape, 24, 0.5).sum(), covered(shape, 24, 0.9).sum()
    assert large == pytest.approx(small * (0.9 / 0.5) ** 2, rel=0.05)
    assert painted([Thing("red", shape, 0, 0.9)], 16, 0.0, 0).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scenes": 3}, "at least 10"),
        ({"most": 5}, "expected 1 to 4"),
        ({"side": 15}, "even"),
        ({"most": 1}, "there are"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, int], said: str):
    with pytest.raises(ValueError, match=said):
        Scenes(**options)  # type: ignore[arg-type]
