"""K3: few queries over very many keys."""

from kernels.split_keys.op import attend_bags, split_attend
from kernels.split_keys.reference import SplitAttended

__all__ = ["SplitAttended", "attend_bags", "split_attend"]
