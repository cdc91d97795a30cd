"""Files of `torch.save` that are read back: no program in them is run, and a flipped bit does not pass for a weight."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from data.errors import one_line


class Damaged(ValueError):
    """A file is not what was saved; the message says how that shows."""


def read_saved(path: Path) -> Any:
    """What was saved, on the CPU.

    torch does not compare a file with its check sums, so that is done here first.

    Raises:
        Damaged: cut short, changed, or a pickle that asks for more than plain tensors
    """
    try:
        with zipfile.ZipFile(path) as packed:
            if (torn := packed.testzip()) is not None:
                raise Damaged(f"{torn} differs from its check sum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Damaged:
        raise
    except Exception as error:  # foreign bytes are taken for sizes, types and names, and end in any way
        raise Damaged(one_line(str(error))[:200] or type(error).__name__) from None
