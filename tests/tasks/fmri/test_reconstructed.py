"""Prior and low-level pipeline by a config: what is kept, how it is judged, and what stands beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.errors import DataError
from tasks.fmri.decoder import Reconstruction
from tasks.fmri.reconstructed import as_pictures, judged_reconstructions, read_reconstructed, write_reconstructed
from tests.tasks.fmri.runs import ARMS, fmri, written

CANDIDATES = [f"class{k:02d}" for k in range(5)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training with both, on pictures of 16 pixels."""
    folder = tmp_path_factory.mktemp("reconstructed")
    draw = np.random.default_rng(0)
    for name in CANDIDATES:
        Image.fromarray(draw.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize((64, 64), 0).save(
            folder / f"{name}.png"
        )
    pictures = {"class_path": "Pictures", "init_args": {"images": str(folder), "side": 16}}
    targets = {"class_path": "Together", "init_args": {"image": {"class_path": "OneHot"}, "low_level": pictures}}
    config = {
        "task": "fmri",
        "name": "made",
        "runs": str(folder / "runs"),
        "brains": {
            "class_path": "SimulatedBrains",
            "init_args": {"subjects": 2, "classes": 5, "runs": 4, "noise": 0.3, "voxels": [20, 30]},
        },
        "split": {"class_path": "RunFolds", "init_args": {"folds": 2}},
        "model": {
            "class_path": "DeepDecoder",
            "init_args": {
                "targets": targets, "trainer": {"max_epochs": 25}, "prior": {"steps": 10}, "low_level": {"width": 32},
                "architecture": {"shared": 32, "blocks": 1, "voxel_tokens": 4, "token_width": 16, "heads": 2,
                                 "projector": 16},
            },
        },
        "baselines": {"ridge": ARMS["Ridge"]},
        "controls": {"permutations": 20, "leakage": False},
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        assert fmri(patch, "train", "-c", written(folder, config), "--folds", "0", "--quiet") == 0
    return folder / "runs" / "fmri" / "made"


def test_tokens_and_pictures_are_judged_beside_chance_and_the_mean_picture(run: Path):
    rows = pd.read_csv(run / "reconstruction.csv").set_index(["kind", "measure"])
    assert set(rows["arm"]) == {"made"}
    assert rows.loc[("latents", "two-way"), "value"] > 0.6, "noise is weak"
    assert rows.loc[("latents", "PixCorr"), "value"] > rows.loc[("latents", "PixCorr"), "chance"]
    assert rows.loc[("tokens", "top-1"), "chance"] == pytest.approx(0.2)
    assert 0 < rows.loc[("latents", "PixCorr"), "mean_picture"] < 1
    assert {"SSIM"} <= set(rows.loc["latents"].index)
    assert (rows["n"] == 2 * 2 * 5).all()
    assert (run / "derivatives" / "reconstruction.tsv").is_file()


def test_the_page_shows_pictures_under_what_was_shown(run: Path):
    page = (run / "report.html").read_text()
    assert "Reconstruction of held-out samples" in page
    assert "What was shown, and what was decoded" in page


def kept(
    tmp_path: Path, made: np.ndarray, shown: np.ndarray, truth: list[int], networks: dict[str, str] | None = None
) -> list[dict]:
    """The measures of reconstructions that are given."""
    ids = [f"01/{k}" for k in range(len(made))]
    unit = tmp_path / "arm" / "fold0-seed1"
    unit.mkdir(parents=True)
    write_reconstructed(unit / "reconstructed.npz", ids, {"latents": Reconstruction(made, shown)})
    (unit / "done.json").write_text("{}")
    judged = pd.DataFrame({"truth": [CANDIDATES[k] for k in truth], "subject": "01", "run": "1"}, index=ids)
    return list(judged_reconstructions(tmp_path, "arm", judged, CANDIDATES, "sample", 20, networks or {}))


def test_a_perfect_reconstruction_is_perfect_and_the_mean_picture_is_not(tmp_path: Path):
    shown = np.random.default_rng(0).random((5, 3, 12, 12)).astype(np.float32)
    truth = [3, 0, 1, 1]
    of = {row["measure"]: row for row in kept(tmp_path, shown[truth], shown, truth)}
    for measure in ("two-way", "top-1", "PixCorr", "SSIM"):
        assert of[measure]["value"] == pytest.approx(1)
        assert of[measure]["chance"] < 0.6
    assert of["PixCorr"]["mean_picture"] < 0.6
    again = read_reconstructed(tmp_path, "arm")[0]
    assert again.ids == [f"01/{k}" for k in range(4)]


def test_the_same_picture_for_everybody_is_chance(tmp_path: Path):
    shown = np.random.default_rng(0).random((5, 3, 12, 12)).astype(np.float32)
    same = np.repeat(shown.mean(axis=0, keepdims=True), 5, axis=0)
    of = {row["measure"]: row for row in kept(tmp_path, same, shown, list(range(5)))}
    assert of["two-way"]["value"] == pytest.approx(0.5)
    assert of["PixCorr"]["value"] == pytest.approx(of["PixCorr"]["mean_picture"], abs=1e-6)


def test_latents_that_are_no_pictures_have_no_pixels_to_judge(tmp_path: Path):
    draw = np.random.default_rng(0)
    latents = draw.standard_normal((5, 4, 8, 8)).astype(np.float32)
    assert as_pictures(Reconstruction(latents, latents)) is None
    rows = kept(tmp_path, latents, latents, list(range(5)))
    assert [row["measure"] for row in rows] == ["two-way", "top-1", "correlation"]
    assert np.isnan(rows[2]["mean_picture"])


def test_a_network_judges_pictures(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text('{"size": {"height": 16, "width": 16}}')
    shown = np.random.default_rng(0).random((5, 3, 16, 16)).astype(np.float32)
    rows = kept(tmp_path, shown, shown, list(range(5)), {"vit": str(tmp_path / "vit")})
    (judged,) = [row for row in rows if row["measure"] == "two-way, vit"]
    assert judged["value"] == pytest.approx(1)
    assert judged["chance"] == 0.5
    with pytest.raises(DataError, match="no such folder; give a local folder with a vision model"):
        kept(tmp_path / "again", shown, shown, list(range(5)), {"vit": str(tmp_path / "none")})
