"""Pixels of one patch -> one feature vector. Importing this imports no torch: decoding processes stay small."""

from encoders.patch.base import PatchEncoder
from encoders.patch.stain_texture import StainTexture
from encoders.patch.vision_models import MobileNetV2, TimmModel, TorchvisionModel, TransformersModel

__all__ = ["MobileNetV2", "PatchEncoder", "StainTexture", "TimmModel", "TorchvisionModel", "TransformersModel"]
