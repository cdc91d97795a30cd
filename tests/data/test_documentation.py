"""The config of docs/data.md loads a cohort."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from jsonargparse import ArgumentParser

import data.cohort.tables
from data.cohort.cohort import CohortSource

DOC = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def test_the_documented_schema_loads_a_table_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(0)
    pd.DataFrame(
        {
            "patient": [f"P{i}" for i in range(20)],
            "scan": [f"S{i}.ndpi" for i in range(20)],
            "days": draw.integers(30, 3000, 20),
            "died": np.arange(20) % 2,
            "age_at_diagnosis": draw.integers(40, 80, 20),
            "MYC_expr": draw.normal(size=20),
            "TP53_expr": draw.normal(size=20),
        }
    ).to_csv(tmp_path / "study.csv", index=False)
    (tmp_path / "pathways.gmt").write_text("cycle\t-\tMYC\tTP53\nloss\t-\tTP53\n")
    (tmp_path / "features").mkdir()
    with h5py.File(tmp_path / "features" / "S3.h5", "w") as file:
        file["features"], file["coords"] = np.ones((2, 4)), np.zeros((2, 2))
    monkeypatch.chdir(tmp_path)
    snippet = re.search(r"```yaml\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert snippet is not None
    parser = ArgumentParser()
    parser.add_subclass_arguments(CohortSource, "cohort")
    source = parser.instantiate(parser.parse_object(yaml.safe_load(snippet[1]))).cohort
    assert isinstance(source, data.cohort.tables.TableCohort)
    cohort = source.load()
    assert cohort.groups == {"cycle": ["MYC_expr", "TP53_expr"], "loss": ["TP53_expr"]}
    assert cohort.patients["event"].sum() == 10
    assert cohort.patients["time"].max() < 100
    assert cohort.bags is not None
    assert cohort.bags.case_ids == ["P3"]
    assert [len(split.test) for split in source.splits()] == [4] * 5
