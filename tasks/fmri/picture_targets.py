"""Targets made of the pictures that were shown: features of a vision model, one of its layers, or the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import UInt8

from data.brain.brain import Brains
from data.errors import DataError
from tasks.fmri.targets import Targets, TargetSet

if TYPE_CHECKING:
    from encoders.patch.vision_models import TransformersModel

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


class ImageModelTargets(Targets):
    """Features of the stimulus pictures from a vision model in a local folder.

    Args:
        images: folder with a picture per candidate, `<candidate>.png` (or jpg, tif, bmp)
        model: local folder of a vision model in the format of transformers
        pooling: `cls` takes the class token, `mean` averages the patch tokens
        layer: instead, all that one submodule says, flattened, as `model.named_modules()` calls it
    """

    def __init__(self, images: str, model: str, pooling: Literal["cls", "mean"] = "cls", layer: str | None = None):
        self.images, self.model, self.pooling, self.layer = images, model, pooling, layer

    def embed(self, brains: Brains, train: Sequence[str], new: Sequence[str] = ()) -> TargetSet:
        encoder = local_model(self.model, self.pooling)
        shown = pictures(self.images, brains.candidates, encoder.side or 224)
        if self.layer is None:
            return TargetSet(np.asarray(encoder(shown), dtype=np.float32)[:, None])
        import torch

        from tasks.fmri.brain_score import layer_features

        network: Any = encoder.network
        found = layer_features(network.model, self.layer, encoder.normalised(torch.from_numpy(shown)))
        return TargetSet(found.astype(np.float32)[:, None])


class Pictures(Targets):
    """The pictures themselves, small: a target for the low-level pipeline that needs no autoencoder.

    Tokens are the pixels of each picture without its mean, latents are `[k, 3, side, side]` from 0 to 1.

    Args:
        images: folder with a picture per candidate, `<candidate>.png` (or jpg, tif, bmp)
        side: pixels, a multiple of 4
    """

    def __init__(self, images: str, side: int = 16):
        if side < 4 or side % 4:
            raise ValueError(f"Pictures: side={side}; expected a multiple of 4")
        self.images, self.side = images, side

    def embed(self, brains: Brains, train: Sequence[str], new: Sequence[str] = ()) -> TargetSet:
        shown = pictures(self.images, brains.candidates, self.side).astype(np.float32) / 255
        flat = shown.reshape(len(shown), -1)
        return TargetSet((flat - flat.mean(axis=1, keepdims=True))[:, None], latents=shown.transpose(0, 3, 1, 2))


def local_model(folder: str, pooling: Literal["cls", "mean"] = "cls") -> TransformersModel:
    """A vision model in the format of transformers; pictures `[n, i, j, 3]` in bytes to `[n, f]`.

    Raises:
        DataError: no such folder
    """
    from encoders.patch.vision_models import TransformersModel

    if not Path(folder).is_dir():
        raise DataError(f"{folder}: no such folder; give a local folder with a vision model")
    return TransformersModel(folder, pooling)


def pictures(folder: str, candidates: Sequence[str], side: int) -> UInt8[np.ndarray, "k i i 3"]:
    """The picture of each candidate at one size.

    Raises:
        DataError: one is not there or is no picture
    """
    return np.stack([_picture(Path(folder), name, side) for name in candidates])


def _picture(folder: Path, name: str, side: int) -> UInt8[np.ndarray, "i i 3"]:
    from PIL import Image

    found = next((path for end in PICTURES if (path := folder / f"{name}{end}").is_file()), None)
    if found is None:
        raise DataError(f"{folder}: no picture {name}.png (or jpg, tif, bmp) of candidate {name}; add it")
    try:
        with Image.open(found) as picture:
            return np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
    except OSError as problem:
        raise DataError(f"{found}: not a picture ({problem}); copy it again") from None
