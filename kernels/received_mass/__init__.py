"""K2: how much attention each key receives, without the map."""

from kernels.received_mass.op import received_mass

__all__ = ["received_mass"]
