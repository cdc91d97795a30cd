"""What the reproductions make of measured ranks: means over seeds and styles, differences, bars between arms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tasks.reproduce.conditional_cross_attention import ARMS as SPACES
from tasks.reproduce.conditional_cross_attention import EMOJI, Found, judged
from tasks.reproduce.filip import recall, rows_of
from tasks.reproduce.filip_folds import FOLDS, INNER, compared, fold_of
from tasks.reproduce.filip_trainings import ALL, BESIDE, Asked, pairs_of

STYLES = ("noto", "twemoji", "fluent")
GALLERIES = (*STYLES, "openmoji (unseen style)", "noto, full gallery", "openmoji (unseen style), full gallery")


def asked(ranks: dict[str, list[int]], seeds: int = 2) -> list[Asked]:
    return [
        Asked(arm, seed, gallery, direction, 40, pd.DataFrame({"rank": own, "reciprocal_rank": 1 / np.array(own)}))
        for arm, own in ranks.items()
        for seed in range(seeds)
        for gallery in GALLERIES
        for direction in ("i2t", "t2i")
    ]


def test_recall_is_one_value_per_query_over_seeds_and_styles():
    found = asked({"global": [1, 2, 9]}, seeds=1)
    found += [one._replace(seed=1, queries=pd.DataFrame({"rank": [3, 1, 30]})) for one in found]
    np.testing.assert_allclose(recall(found, "global", "i2t", 1, STYLES), [0.5, 0.5, 0.0])
    np.testing.assert_allclose(recall(found, "global", "i2t", 10, STYLES), [1.0, 1.0, 0.5])


@pytest.mark.parametrize("protocol", ["A", "B"])
def test_bars_hold_and_fail_by_what_was_measured(protocol: str):
    good, poor = [1] * 30 + [20] * 10, [1] * 5 + [20] * 35
    rows = {row["name"]: row for row in rows_of(protocol, asked(dict.fromkeys(ALL, good) | {"global": poor}))}  # type: ignore[arg-type]
    assert rows[f"{protocol}: both, i2t R@1, against the better one (tokens)"]["ok"]
    assert any("unseen style" in name for name in rows)
    assert any("full gallery" in name for name in rows)
    if protocol == "A":
        assert not rows["A: global, i2t R@1"]["ok"]
        assert "chance 0.0250" in rows["A: global, i2t R@1"]["note"]
    else:
        assert rows["B: tokens above global, i2t R@1, lower end"]["ok"]
        assert rows["B: tokens, t2i R@1"]["ok"]
        assert not rows["B: global, t2i R@1"]["ok"]
    worse = {row["name"]: row for row in rows_of(protocol, asked(dict.fromkeys(ALL, good) | {"both": poor}))}  # type: ignore[arg-type]
    assert not worse[f"{protocol}: both, t2i R@1, against the better one (global)"]["ok"]


def test_four_folds_ask_every_concept_that_is_not_tested_once(shared_data: Path):
    pairs, asked_for = pairs_of(shared_data / "retrieval", "A"), []
    for fold in FOLDS:
        own = fold_of(pairs, fold)
        split = own.right_table["split"]
        assert own.right_table.groupby("family")["split"].nunique().max() == 1
        assert INNER <= (split == "val").sum() < INNER + 20
        asked_for += list(split.index[split == "test"])
        for table, before in ((own.table, pairs.table), (own.right_table, pairs.right_table)):
            assert set(table["split"][before["split"] == "test"]) == {"searched only"}
        assert set(own.table["style"][own.table["split"] != "searched only"]) == set(STYLES)
        galleries = [gallery for gallery in own.galleries if gallery.split == "test"]
        assert [gallery.name for gallery in galleries] == list(STYLES)
        assert all(gallery.right_gallery == np.flatnonzero(split == "test").tolist() for gallery in galleries)
    assert sorted(asked_for) == sorted(pairs.right_table.index[pairs.right_table["split"] != "test"])


def test_folds_are_put_one_after_another():
    ranks = {"global": [1, 2], "tokens": [2, 3], "both": [1, 1]} | {arm: [2, 2] for arm in BESIDE}
    folds = []
    for size in (40, 50):
        queries = {arm: pd.DataFrame({"rank": own, "reciprocal_rank": 1 / np.array(own)}) for arm, own in ranks.items()}
        folds.append([Asked(arm, 0, "noto", d, size, queries[arm]) for arm in ranks for d in ("i2t", "t2i")])
    found = {row["name"]: row for row in compared("folds", folds)}
    row = found["folds: both, i2t R@1, against the better one (global)"]
    assert (row["against"], row["ours"], row["n"], row["ok"]) == (0.5, 1.0, 4, True)
    assert "gallery 40 and 50; R@1: both 1.000, both (shared projections) 0.000, global 0.500, " in row["note"]
    assert "both minus both (shared projections) +1.000" in row["note"]
    assert ", global +0.500 (" in row["note"]
    apart = found["folds: both minus the better one (global), t2i MRR"]
    assert (apart["ours"], apart["low"] <= 0.25 <= apart["high"], apart["ok"]) == (0.25, True, None)
    for part in folds:
        part[:] = [one._replace(queries=one.queries.assign(rank=9)) if one.arm == "both" else one for one in part]
    assert [row["ok"] for row in compared("folds", folds)] == [False, None, False, None]
    silent = list(compared("folds", folds, claimed=False))
    assert [row["ok"] for row in silent] == [None] * 4
    assert silent[0]["name"] == "folds: both, i2t R@1"


def spaces(precision: dict[str, float]) -> list[Found]:
    table = {
        arm: pd.DataFrame({"average_precision": [value] * 20, "relevant": 5, "gallery": 50})
        for arm, value in precision.items()
    }
    probes = pd.DataFrame(
        [
            {"space": s, "attribute": a, "accuracy": 0.9 if s == a else 0.4, "majority": 0.3, "n": 20}
            for s in EMOJI
            for a in EMOJI
        ]
    )
    apart = 1 - torch.eye(len(EMOJI))
    return [Found(arm, seed, dict.fromkeys(EMOJI, table[arm]), probes, apart) for arm in precision for seed in (0, 1)]


def test_the_condition_query_is_held_against_heads_and_shared_space():
    found = spaces({"condition query": 0.60, "separate heads": 0.605, "shared": 0.52, "masks": 0.5})
    assert set(one.arm for one in found) == set(SPACES)
    rows = {row["name"]: row for row in judged("emoji", EMOJI, found)}
    assert rows["emoji: style, mAP, against separate heads"]["ok"]
    assert not rows["emoji: style, mAP, against shared + 0.10"]["ok"]
    assert rows["emoji: group, mAP, against shared"]["ok"]
    entangled = rows["emoji: entanglement, diagonal against the rest"]
    assert entangled["ours"] == pytest.approx(0.9)
    assert entangled["against"] == pytest.approx(0.4)
    assert "style tells style 0.90, skin_tone 0.40" in entangled["note"]
