"""The config of docs/fmri-data.md loads the scans that the same page says how to write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

import data.brain.arrays
import data.brain.bids
import data.brain.nifti
import data.brain.openfmri
import data.simulate.brains
import data.simulate.semireal
from data.brain import splits
from data.brain.brain import BrainSource
from data.simulate.scans import SimulatedScans

DOC = Path(__file__).resolve().parents[2] / "docs" / "fmri-data.md"


def test_the_documented_config_loads_simulated_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    SimulatedScans(subjects=("01",), runs=2).write("study")
    snippet = re.search(r"```yaml\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert snippet is not None
    config = yaml.safe_load(snippet[1])
    config["brains"]["init_args"]["cleaning"]["confounds"] = ["motion", "cosine"]
    parser = ArgumentParser()
    parser.add_subclass_arguments(BrainSource, "brains")
    source = parser.instantiate(parser.parse_object(config)).brains
    assert isinstance(source, data.brain.bids.BidsBrains)
    assert source.leave_out == ("rest", "fixation")
    assert source.load().subjects["01"].x.shape == (6, 320)


def test_every_source_and_split_of_the_page_exists():
    page = DOC.read_text()
    modules = (data.brain.bids, data.brain.openfmri, data.brain.nifti, data.brain.arrays)
    simulated = (data.simulate.brains, data.simulate.semireal)
    named = re.findall(r"^\| `([A-Z]\w+)` \|", page, re.MULTILINE)
    assert len(named) == 13
    assert all(any(hasattr(module, name) for module in (*modules, *simulated, splits)) for name in named)
