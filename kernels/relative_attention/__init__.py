"""K5: causal attention with relative distances."""

from kernels.relative_attention.op import relative_attend, relative_step
from kernels.relative_attention.reference import RelativeAttended

__all__ = ["RelativeAttended", "relative_attend", "relative_step"]
