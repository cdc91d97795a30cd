"""A unit that asks for more memory than there is; a file of its own, so that a worker which runs it starts quickly."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np


def greedy(folder: Path, how: str) -> dict[str, str]:
    """Four ways of having no memory left, the last one as the kernel ends it; any other way is modest."""
    if how == "numpy":
        np.ones(2**52)
    elif how == "torch":
        import torch

        torch.ones(2**52)
    elif how == "python":
        bytearray(2**62)
    elif how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"how": how}
