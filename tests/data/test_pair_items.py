"""Pairs: who belongs to whom is the same from both sides, splits are everybody's, credits are kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from data.errors import DataError
from data.pairs.items import Pairs, Side, galleries_of_splits, split_of
from data.pairs.without import without


def made(matches: list[tuple[int, ...]], splits: list[str], right_splits: list[str]) -> Pairs:
    left = Side("image", [f"l{k}" for k in range(len(matches))], lambda rows: np.zeros((len(rows), 3, 2, 2), np.uint8))
    right = Side("text", [f"r{k}" for k in range(len(right_splits))], lambda rows: [f"text {row}" for row in rows])
    table = pd.DataFrame({"split": splits, "attribution": "me", "licence": "CC0"}, index=left.ids)
    right_table = pd.DataFrame({"split": right_splits}, index=right.ids)
    return Pairs("made", left, right, matches, table, right_table, galleries_of_splits(table, right_table))


PAIRS = made([(0, 1), (1,), (2,), (3,)], ["train", "train", "val", "test"], ["train", "train", "val", "test"])


def test_partners_are_the_matches_seen_from_the_other_side():
    assert PAIRS.partners == [(0,), (0, 1), (2,), (3,)]
    everybody = PAIRS.relevance(range(4), range(4))
    for left, rights in enumerate(PAIRS.matches):
        assert set(np.flatnonzero(everybody[left])) == set(rights)
    for right, lefts in enumerate(PAIRS.partners):
        assert set(np.flatnonzero(everybody[:, right])) == set(lefts)
    np.testing.assert_array_equal(PAIRS.relevance([3, 0], [1, 3, 0]), everybody[[3, 0]][:, [1, 3, 0]])


def test_a_part_of_a_side_loads_the_same_items():
    part = PAIRS.right.take([3, 1])
    assert part.ids == ["r3", "r1"]
    assert part.load([1, 0]) == ["text 1", "text 3"]


def test_every_split_has_a_gallery_and_the_test_is_asked_among_all():
    names = {gallery.name: gallery for gallery in PAIRS.galleries}
    assert list(names) == ["val", "test", "test, full gallery"]
    assert names["test, full gallery"].left_queries == [3]
    assert names["test, full gallery"].right_gallery == [0, 1, 2, 3]
    assert PAIRS.rows("train") == ([0, 1], [0, 1])


def test_credits_are_said_once():
    assert PAIRS.attribution() == ["me (CC0)"]


def test_an_item_s_split_depends_on_its_key_alone():
    keys = [f"item {k}" for k in range(4000)]
    found = [split_of(key) for key in keys]
    assert found[::-1] == [split_of(key) for key in reversed(keys)]
    shares = pd.Series(found).value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.70, abs=0.03)
    assert shares["val"] == pytest.approx(0.15, abs=0.02)


def test_an_id_stands_once():
    with pytest.raises(DataError, match=r"text: id 'a' stands twice; give every item an id of its own"):
        Side("text", ["b", "a", "a"], lambda rows: ["" for _ in rows])


@pytest.mark.parametrize(("left", "right"), [([], [1]), ([1], []), ([2], [3]), ([0], [0])])
def test_without_some_items_the_others_keep_who_belongs_to_whom(left: list[int], right: list[int]):
    fewer = without(PAIRS, left, right, "empty")
    whole = {
        (PAIRS.left.ids[a], PAIRS.right.ids[b])
        for a, own in enumerate(PAIRS.matches)
        for b in own
        if a not in left and b not in right
    }
    assert {(fewer.left.ids[a], fewer.right.ids[b]) for a, own in enumerate(fewer.matches) for b in own} == whole
    assert set(fewer.left.ids) == {a for a, _ in whole}, "an item without a partner teaches and asks nothing"
    assert set(fewer.right.ids) == {b for _, b in whole}
    assert fewer.right.load(range(len(fewer.right))) == [f"text {name[1:]}" for name in fewer.right.ids]
    for gallery in fewer.galleries:
        assert {fewer.table["split"].iloc[row] for row in gallery.left_queries} == {gallery.split}
        assert set(gallery.right_queries) <= set(gallery.right_gallery)
    gone = {*PAIRS.left.ids, *PAIRS.right.ids} - {*fewer.left.ids, *fewer.right.ids}
    assert sorted(line.split(":")[0] for line in fewer.account) == sorted(gone)


def test_without_nothing_is_the_same_and_without_everything_is_said():
    assert without(PAIRS, [], [], "empty") is PAIRS
    with pytest.raises(DataError, match=r"^made: no item is left; r3: empty; left out$"):
        without(PAIRS, [], range(4), "empty")


def test_a_query_whose_partners_are_left_in_other_galleries_alone_is_not_asked():
    across = made([(0, 2), (1,), (2,), (3,)], ["test", "train", "val", "test"], ["test", "train", "val", "test"])
    fewer = without(across, [], [0], "empty")
    test = next(gallery for gallery in fewer.galleries if gallery.name == "test")
    assert [fewer.left.ids[row] for row in test.left_queries] == ["l3"]
    assert [fewer.left.ids[row] for row in test.left_gallery] == ["l0", "l3"]
    assert "l0: none of its partners is left in test; not asked there" in fewer.account
    whole = next(gallery for gallery in fewer.galleries if gallery.name == "test, full gallery")
    assert [fewer.left.ids[row] for row in whole.left_queries] == ["l0", "l3"]


def test_a_gallery_that_nobody_asks_any_more_is_gone():
    assert [gallery.name for gallery in without(PAIRS, [], [3], "empty").galleries] == ["val"]
