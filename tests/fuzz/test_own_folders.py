"""What the program itself wrote and reads again: indices, journals, preparations, units, checkpoints, frozen tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from data.checksum import sha256
from data.cohort.prepare import Fitted
from data.slides.journal import Journal, Record
from encoders.frozen import Features
from encoders.patch.networks import MobileNetV2Features, load_weights
from tasks.experiment.fit import newest_checkpoint
from tasks.experiment.state import described
from tasks.experiment.units import Unit, run_unit
from tasks.retrieval import index_folder
from tasks.retrieval.index import Index, Settings
from tests.fuzz.damage import files, json_files, trees
from tests.fuzz.test_feature_files import npy, saved, torn_archives
from tests.fuzz.tried import Tried, law

FITTED = {"edges": [1.0, 2.0], "covariates": ["age"], "covariate_mean": [60.0], "covariate_scale": [9.0]}
FITTED |= {"genes": ["A"], "gene_mean": [0.0], "gene_scale": [1.0], "groups": {"g": ["A"]}}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "idx"
    made = Index(Settings("abc", 4, "both", 0.5, origin={"side": "left"}))
    rng = np.random.default_rng(0)
    tokens = [rng.standard_normal((2, 4)).astype(np.float32) for _ in range(3)]
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in tokens]
    made.add(list("abc"), np.stack([part[0] for part in unit]), unit, [{}, {"caption": "<b>"}, {}])
    index_folder.save(made, folder)
    return folder


def opened(folder: Path) -> None:
    assert len(index_folder.load(folder)) < 4
    index_folder.verify(folder)


@law(data=st.data())
def test_indices(data: st.DataObject, index: Path, tried: Tried):
    copy = index.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(index, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    arrays = copy / manifest["arrays"]
    which = data.draw(st.sampled_from(["manifest.json", *sorted(manifest["files"])]))
    path = copy / which if which == "manifest.json" else arrays / which
    if which == "manifest.json" and data.draw(st.booleans()):
        path.write_text(json.dumps(data.draw(trees(manifest))))
    else:
        path.write_bytes(data.draw(files([path.read_bytes()], head=128)))
    if which != "manifest.json":  # somebody who changes a file can change the manifest too
        manifest["files"][which] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        (copy / "manifest.json").write_text(json.dumps(manifest))
    tried(opened, copy)


@law(content=json_files(FITTED))
def test_preparations(content: bytes, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / "prepared.json"
    path.write_bytes(content)
    tried(Fitted.load, path)


@law(data=st.data())
def test_journals(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / "journal.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for k in range(2):
        journal.append(Record(f"s{k}", "done", files=("a.h5",), settings={"patch": 256}, at=1.0))
    rows = [json.dumps(data.draw(trees(json.loads(line)))) for line in path.read_text().splitlines()]
    path.write_bytes(data.draw(files(["\n".join(rows).encode()])))
    tried(journal.latest)
    tried(journal.last, "s1")


@law(content=st.one_of(files([saved({"epoch": 1, "state_dict": {"w": torch.zeros(2)}})]), torn_archives()))
def test_checkpoints(content: bytes, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    folder = tmp_path_factory.getbasetemp() / "fit"
    folder.mkdir(exist_ok=True)
    (folder / "last.ckpt").write_bytes(content)
    tried(newest_checkpoint, folder)


@law(content=st.one_of(files([saved({"classifier.1.weight": torch.zeros(1)})]), torn_archives()))
def test_weights_of_encoders(content: bytes, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    path = tmp_path_factory.getbasetemp() / "weights.pt"
    path.write_bytes(content)
    tried(load_weights, NETWORK, path)


NETWORK = MobileNetV2Features()


def nothing(folder: Path) -> None:
    return None


@law(content=json_files({"fingerprint": "0", "seconds": 1.0}), config=files([b"name: a\nrivals: {b: null}\n"]))
def test_units_and_runs(content: bytes, config: bytes, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    run = tmp_path_factory.getbasetemp() / "run"
    unit = Unit(run / "a" / "fold0-seed1", nothing, {})
    unit.folder.mkdir(parents=True, exist_ok=True)
    (unit.folder / "done.json").write_bytes(content)
    (unit.folder / "error.txt").write_bytes(content)
    (run / "config.yaml").write_bytes(config)
    (run / "left_out.json").write_bytes(content)
    tried(described, run)
    assert tried(run_unit, unit).error is None


@law(about=json_files({"width": 2, "items": 2}), offsets=files([npy(np.array([0, 1, 3]))], head=90))
def test_frozen_tokens(about: bytes, offsets: bytes, tmp_path_factory: pytest.TempPathFactory, tried: Tried):
    folder = tmp_path_factory.getbasetemp() / "tokens"
    folder.mkdir(exist_ok=True)
    (folder / "about.json").write_bytes(about)
    (folder / "offsets.npy").write_bytes(offsets)
    np.zeros((3, 2), np.float16).tofile(folder / "tokens.f16")
    tried(lambda: Features(folder)[[0, 1]])
