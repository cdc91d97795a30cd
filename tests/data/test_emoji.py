"""Emoji protocols as the data set's page states them, on the real files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.pairs.collages import composed, drawn_collages
from data.pairs.emoji import ATTRIBUTES, EmojiPack, EmojiPairs


@pytest.fixture
def emoji(shared_data: Path) -> str:
    return str(shared_data / "retrieval" / "emoji")


def test_protocol_a_has_the_stated_sizes_and_no_test_family_is_learnt(emoji: str):
    pairs = EmojiPairs("A", emoji).load()
    assert [len(pairs.rows(split)[1]) for split in ("train", "val", "test")] == [1131, 178, 277]
    galleries = {gallery.name: gallery for gallery in pairs.galleries}
    assert len(galleries["openmoji (unseen style)"].left_gallery) == 277
    assert len(galleries["noto, full gallery"].right_gallery) == 1586
    learnt = pairs.table.iloc[pairs.rows("train")[0]]
    assert "openmoji" not in set(learnt["style"])
    tested = pairs.right_table.iloc[pairs.rows("test")[1]]
    assert not set(learnt["family"]) & set(tested["family"])
    assert pairs.right.load([0])[0].startswith("grinning face: cheerful, cheery, face")
    assert pairs.left.load([0, 1586]).shape == (2, 3, 64, 64)
    assert "OpenMoji (CC BY-SA 4.0)" in pairs.attribution()


def test_collages_come_in_groups_that_share_three_of_four(emoji: str):
    pairs = EmojiPairs("B", emoji, collages=30).load()
    gallery = next(g for g in pairs.galleries if g.name == "noto")
    labels = [set(text.split(", ")) for text in pairs.right.load(gallery.right_queries)]
    assert len(labels) == 400
    for start in range(0, 400, 4):
        group = labels[start : start + 4]
        assert len(set.intersection(*group)) >= 3
        assert len({frozenset(own) for own in group}) == 4
    assert [pairs.matches[row][0] for row in gallery.left_queries] == gallery.right_queries
    assert pairs.left.load([0]).shape == (1, 3, 128, 128)


def test_a_drawing_s_partners_are_drawn_by_others(emoji: str):
    pairs = EmojiPairs("C", emoji).load()
    concept, style = pairs.table["base"].to_numpy(), pairs.table["style"].to_numpy()
    for row in (0, 2000, 6343):
        partners = list(pairs.matches[row])
        assert set(concept[partners]) == {concept[row]}
        assert sorted({*style[partners], style[row]}) == ["fluent", "noto", "openmoji", "twemoji"]
    for gallery in pairs.galleries:
        assert not set(style[gallery.left_queries]) & set(style[gallery.right_gallery])


def test_attributes_of_protocol_d_are_the_stated_ones(emoji: str):
    table = EmojiPairs("D", emoji).load().table
    assert set(ATTRIBUTES) <= set(table.columns)
    assert set(Counter(table["skin_tone"])) == {None, "light", "medium-light", "medium", "medium-dark", "dark"}
    assert set(Counter(table["gender"])) == {None, "female", "male"}
    assert "flags" not in set(table["group"])


def test_a_missing_zip_is_named(emoji: str, tmp_path: Path):
    (tmp_path / "emoji.jsonl").write_bytes((Path(emoji) / "emoji.jsonl").read_bytes())
    with pytest.raises(
        DataError, match=r"noto.zip: no such file or folder; its 6 files .*`fusion data import retrieval"
    ):
        EmojiPack.read(tmp_path)


def test_a_collage_shows_its_four_pictures_in_reading_order():
    four = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(3, 1).repeat(2, 2).repeat(2, 3)
    assert composed(four)[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_collages_name_their_pictures_in_another_order_and_never_repeat():
    collages = drawn_collages([str(k) for k in range(9)], 40, False, np.random.default_rng(0))
    assert len({frozenset(collage.shown) for collage in collages}) == 40
    assert all(c.shown != c.told and set(c.shown) == set(c.told) and len(set(c.shown)) == 4 for c in collages)
    with pytest.raises(ValueError, match="6 concepts; expected at least 7"):
        drawn_collages(list("abcdef"), 1, True, np.random.default_rng(0))
