"""Survival models: thin compositions of encoders, the fusion core and a head."""

from tasks.survival.models.abmil import ABMIL
from tasks.survival.models.base import Prediction, SurvivalModel
from tasks.survival.models.cmta import CMTA
from tasks.survival.models.core_fusion import CoreFusion
from tasks.survival.models.late_fusion import LateFusion
from tasks.survival.models.mcat import MCAT
from tasks.survival.models.offset import OffsetFusion
from tasks.survival.models.porpoise import Porpoise
from tasks.survival.models.snn import SNN
from tasks.survival.models.survpath import SurvPath
from tasks.survival.models.transmil import TransMIL

__all__ = [
    "ABMIL",
    "CMTA",
    "MCAT",
    "SNN",
    "CoreFusion",
    "LateFusion",
    "OffsetFusion",
    "Porpoise",
    "Prediction",
    "SurvPath",
    "SurvivalModel",
    "TransMIL",
]
