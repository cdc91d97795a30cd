"""Dissimilarities from files: what people share, models from a table, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.fmri.rsa import category_model
from tests.tasks.fmri.runs import fmri

KINDS = ["face", "house"] * 6


@pytest.fixture
def rdms(tmp_path: Path) -> Path:
    """Five people who see two kinds, with noise."""
    draw, people = np.random.default_rng(0), []
    for _ in range(5):
        noise = draw.random((12, 12))
        people.append(category_model(KINDS) + 0.5 * (noise + noise.T) * (1 - np.eye(12)))
    np.savez(tmp_path / "people.npz", rdm=np.stack(people))
    return tmp_path / "people.npz"


def test_a_column_that_is_true_reaches_the_ceiling_and_names_are_no_model(
    rdms: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    table = pd.DataFrame({"kind": KINDS, "size": np.random.default_rng(1).random(12), "name": list("abcdefghijkl")})
    table.insert(0, "index", range(12))
    table.to_csv(rdms.with_name("models.tsv"), sep="\t", index=False)
    np.save(rdms.with_name("other.npy"), category_model(KINDS))
    given = ("--models", rdms.with_name("models.tsv"), "--models", rdms.with_name("other.npy"), "--draws", "200")
    assert fmri(monkeypatch, "rsa", rdms, *given, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    models = {row["model"]: row for row in rows["models"]}
    assert set(models) == {"kind", "size", "other"}
    assert models["kind"]["value"] == pytest.approx(models["other"]["value"])
    assert models["kind"]["value"] > 0.8 * models["kind"]["ceiling_low"]
    assert models["kind"]["p"] < 0.05 < models["size"]["p"]
    people = {row["what"]: row["value"] for row in rows["people"]}
    assert people["noise ceiling, lower end"] < people["noise ceiling, upper end"]
    assert fmri(monkeypatch, "rsa", rdms) == 0
    assert "noise ceiling, lower end" in capsys.readouterr().out


def test_what_does_not_fit_is_one_line(rdms: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    table = rdms.with_name("models.csv")
    cases = {
        "3 rows for 12 conditions; give one each": lambda: table.write_text("kind\na\nb\nc\n"),
        "column kind has an empty cell": lambda: table.write_text("kind,x\n" + "a,1\n" * 11 + ",2\n"),
        "no column is a model of the conditions": lambda: table.write_text(
            "index,name\n" + "".join(f"{row},{row}x\n" for row in range(12))
        ),
        "no such table": lambda: table.unlink(),
    }
    for said, spoil in cases.items():
        spoil()
        assert fmri(monkeypatch, "rsa", rdms, "--models", table) == 2
        assert said in capsys.readouterr().err
    np.save(rdms.with_name("other.npy"), category_model(["a", "b", "a"]))
    assert fmri(monkeypatch, "rsa", rdms, "--models", rdms.with_name("other.npy")) == 2
    assert "3 conditions, the people's dissimilarities have 12" in capsys.readouterr().err
    np.save(rdms.with_name("one.npy"), category_model(KINDS))
    assert fmri(monkeypatch, "rsa", rdms.with_name("one.npy"), "--models", rdms.with_name("one.npy")) == 2
    assert "one person have no noise ceiling" in capsys.readouterr().err
