"""Geometries: definitions, the ceiling as a bound, and identification that never reads the diagonal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from data.errors import DataError
from tasks.fmri.rsa import (
    between_people,
    category_model,
    compare_rdms,
    identification,
    match_rows,
    noise_ceiling,
    pairs,
    rdm,
    rdms_of,
)
from tasks.reproduce import rsa92
from tests.tasks.fmri.made import blocks, geometry


def people(count: int = 6, noise: float = 1.0, n: int = 20) -> np.ndarray:
    draw = np.random.default_rng(0)
    shared = draw.standard_normal((n, 8))
    return np.stack([rdm(shared + noise * draw.standard_normal((n, 8)), "euclidean") for _ in range(count)])


def test_an_rdm_is_one_minus_the_correlation_of_patterns():
    patterns = np.random.default_rng(0).standard_normal((5, 12))
    found = rdm(patterns)
    np.testing.assert_allclose(found, 1 - np.corrcoef(patterns), atol=1e-12)
    assert pairs(found).tolist() == [found[i, j] for i in range(5) for j in range(i + 1, 5)]


def test_rdms_of_brains_follow_the_candidates():
    brains = blocks(subjects=2, signal=2.0)
    found = rdms_of(brains, "euclidean")
    assert {own.shape for own in found.values()} == {(4, 4)}
    assert (np.diagonal(found["01"]) == 0).all()
    agreement = between_people(np.stack(list(rdms_of(geometry(noise=0.0), "euclidean").values())))
    np.testing.assert_allclose(agreement, 1, atol=1e-3)


@pytest.mark.parametrize(("kind", "theirs"), [("spearman", spearmanr), ("pearson", pearsonr)])
def test_correlations_are_those_of_scipy(kind, theirs):
    rdms = people(3)
    found = between_people(rdms, kind)
    assert found[0, 2] == pytest.approx(theirs(pairs(rdms[0]), pairs(rdms[2]))[0])
    model = people(1, n=20)[0]
    row = compare_rdms({"model": model}, rdms, kind=kind, draws=20).iloc[0]
    assert row["value"] == pytest.approx(np.mean([theirs(pairs(model), pairs(own))[0] for own in rdms]))


def test_no_model_beats_the_upper_end_of_the_ceiling():
    rdms = people(noise=2.0)
    ceiling = noise_ceiling(rdms)
    assert ceiling.low < ceiling.value < ceiling.high
    best = rdms.mean(axis=0)
    models = {"mean": best, "one": rdms[0], "random": people(1)[0]}
    table = compare_rdms(models, rdms, draws=50)
    assert (table["value"] <= ceiling.high + 1e-9).all()
    assert (table["ceiling_high"] == ceiling.high).all()


def test_people_who_agree_have_a_ceiling_of_one():
    one = people(1)[0]
    ceiling = noise_ceiling(np.stack([one] * 4))
    assert (ceiling.low, ceiling.high) == (pytest.approx(1), pytest.approx(1))


def test_permuted_conditions_bound_a_random_model():
    """p values of random models are spread evenly."""
    rdms, p = people(), []
    for seed in range(60):
        draw = np.random.default_rng(seed + 100)
        p.append(compare_rdms({"m": rdm(draw.standard_normal((20, 5)), "euclidean")}, rdms, draws=60)["p"].iloc[0])
    assert np.mean(np.array(p) < 0.05) < 0.15
    assert np.mean(p) == pytest.approx(0.5, abs=0.12)


def test_matching_rows_is_pearson_without_both_conditions():
    own, other = people(2, n=9)
    found = match_rows(own, other)
    for a, b in ((0, 0), (2, 7), (8, 3)):
        keep = np.ones(9, dtype=bool)
        keep[[a, b]] = False
        assert found[a, b] == pytest.approx(pearsonr(own[a][keep], other[b][keep])[0])


def test_the_diagonal_gives_nothing_away():
    """Geometries that share nothing are identified at chance, however conspicuous a zero diagonal is."""
    draw = np.random.default_rng(0)
    rdms = np.stack([rdm(draw.standard_normal((30, 10)), "euclidean") for _ in range(40)])
    found = identification(rdms)
    assert found["top1"].mean() == pytest.approx(1 / 30, abs=0.02)
    assert found["top5"].mean() == pytest.approx(5 / 30, abs=0.04)
    assert identification(people(noise=0.05))["top1"].mean() > 0.95


def test_what_has_no_geometry_is_said():
    with pytest.raises(DataError, match="pattern 1 is constant"):
        rdm(np.array([[0.0, 1.0], [2.0, 2.0], [1.0, 0.0]]))
    with pytest.raises(DataError, match="at least two people, found 1"):
        noise_ceiling(people(1))
    with pytest.raises(DataError, match="all its dissimilarities are equal"):
        compare_rdms({"flat": category_model(["a"] * 20)}, people(3))
    with pytest.raises(DataError, match="model m: an RDM of 5 conditions for brains with 20"):
        compare_rdms({"m": np.ones((5, 5))}, people(3))


def test_real_geometries_of_92_images(shared_data: Path):
    outcome = rsa92.run(shared_data / "fmri")
    assert [row["name"] for row in outcome["rows"] if not row["ok"]] == []
    rows = {row["name"]: row["ours"] for row in outcome["rows"]}
    assert rows["IT: identification from the group, top-1"] == pytest.approx(0.127, abs=0.001)
    assert rows["IT: noise ceiling, upper end"] == pytest.approx(0.542, abs=0.001)


def test_missing_dissimilarities_name_the_import(tmp_path: Path):
    with pytest.raises(DataError, match=r"no such file or folder; .*`fusion data import fmri --from FOLDER`"):
        rsa92.run(tmp_path)
