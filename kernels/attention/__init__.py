"""K1: softmax attention with masks, biases and row statistics."""

from kernels.attention.op import Attended, attend
from kernels.attention.packed import attend_packed

__all__ = ["Attended", "attend", "attend_packed"]
