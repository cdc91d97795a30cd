"""From slides to a trained model: features written here train alike in either layout, and attention finds its place."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from data.slides.generated import stained, write_slide
from tasks.survival.cli import main
from tasks.survival.features import extract

ROOT = Path(__file__).resolve().parents[2]
PATIENTS, PATCH = 24, 64
SETTINGS = {"grid": {"patch": PATCH, "overlap": 16}, "tissue": {"smallest": 2000.0}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides in folders, a table, and the slides' features in both layouts."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(5)
    for index in range(PATIENTS):
        place = folder / "slides" / f"batch{index % 2}"
        place.mkdir(parents=True, exist_ok=True)
        blob = (0.5, 0.5, rng.uniform(0.25, 0.4))
        write_slide(place / f"S{index}.svs", stained(400, 360, index % 3, [blob]), mpp=0.5)
    genes = pd.DataFrame(rng.standard_normal((PATIENTS, 8)), columns=[f"G{i}_rnaseq" for i in range(8)])
    table = pd.DataFrame(
        {
            "case_id": [f"P{i}" for i in range(PATIENTS)],
            "slide_id": [f"S{i}.svs" for i in range(PATIENTS)],
            "age": rng.normal(60, 10, PATIENTS).round(1),
            "survival_months": rng.exponential(20, PATIENTS).clip(0.1).round(3),
            "censorship": np.arange(PATIENTS) % 4 == 0,
        }
    ).astype({"censorship": int})
    pd.concat([table, genes], axis=1).to_csv(folder / "table.csv", index=False)
    sets = {"first": range(4), "second": range(4, 8)}
    lines = ["\t".join([name, "x", *(f"G{i}" for i in some)]) for name, some in sets.items()]
    (folder / "sets.gmt").write_text("\n".join(lines) + "\n")
    for layout in ("trident", "clam"):
        code, _ = extract(folder / "slides", folder / layout, SETTINGS, layout=layout, jobs=1, share="slides")
        assert code == 0
    return folder


def survival(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["survival", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def trained(monkeypatch: pytest.MonkeyPatch, study: Path, name: str, features: Path) -> Path:
    """A run of CMTA and ABMIL, two epochs."""
    config = {
        "extends": str(ROOT / "configs" / "_base" / "survival.yaml"),
        "name": name,
        "runs": str(study / "runs"),
        "cohort": {
            "class_path": "TableCohort",
            "init_args": {
                "table": str(study / "table.csv"),
                "groups": str(study / "sets.gmt"),
                "slides": str(features),
                "folds": 2,
            },
        },
        "model": {"class_path": "CMTA", "init_args": {"variant": "exact"}},
        "rivals": {"slides alone": {"class_path": "ABMIL"}},
        "prepare": {"init_args": {"bins": 2}},
        "loss": {"init_args": {"bins": 2}},
        "trainer": {"max_epochs": 2},
    }
    (study / f"{name}.yaml").write_text(yaml.safe_dump(config))
    assert survival(monkeypatch, "train", "-c", study / f"{name}.yaml", "--folds", "0", "--quiet") == 0
    return study / "runs" / "survival" / name


@pytest.fixture(scope="module")
def run(study: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return trained(patch, study, "trident", study / "trident")


def predictions(run: Path) -> dict[str, bytes]:
    found = {path.parent.parent.name: path.read_bytes() for path in run.glob("*/fold0-seed1/predictions.csv")}
    return {("model" if arm == run.name else arm): said for arm, said in found.items()}


def test_training_on_either_layout_gives_the_same_predictions(study: Path, run: Path, monkeypatch: pytest.MonkeyPatch):
    clam = trained(monkeypatch, study, "clam", study / "clam")
    ours = predictions(run)
    assert {"model", "slides alone"} <= set(ours)
    assert predictions(clam) == ours


def test_tensors_without_coordinates_train_too(study: Path, run: Path, monkeypatch: pytest.MonkeyPatch):
    bare = trained(monkeypatch, study, "bare", study / "clam" / "pt_files")
    ours, theirs = predictions(run), predictions(bare)
    assert theirs["slides alone"] == ours["slides alone"], "ABMIL asks for no coordinates"
    assert theirs.keys() == ours.keys()


def test_attention_is_drawn_over_the_slide_at_the_coordinates_of_the_file(
    study: Path, run: Path, monkeypatch: pytest.MonkeyPatch
):
    assert survival(monkeypatch, "explain", run, "P3", "--slides", study / "slides") == 0
    page = run / "explain" / "P3"
    written = {path.name for path in page.iterdir()}
    assert {"attention.svg", "top-patches.svg", "bottom-patches.svg", "attention-S3.geojson"} <= written
    said = json.loads((page / "attention-S3.geojson").read_text())["features"]
    with h5py.File(next((study / "trident").rglob("features_*/S3.h5"))) as file:
        coords, side = file["coords"][:], int(file["coords"].attrs["patch_size_level0"])
    assert side == PATCH
    squares = np.array([each["geometry"]["coordinates"][0] for each in said])
    np.testing.assert_array_equal(squares[:, 0], coords)
    np.testing.assert_array_equal(squares[:, 2] - squares[:, 0], side)
    measured = np.array([each["properties"]["measurements"]["attention"] for each in said])
    assert measured.mean() == pytest.approx(1)
    numbers = json.loads((page / "explanation.json").read_text())["attention"]
    assert numbers["top_patches"][0]["times_mean"] == pytest.approx(measured.max())
    assert numbers["bottom_patches"][0]["times_mean"] == pytest.approx(measured.min())
