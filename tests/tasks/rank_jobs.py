"""What a rank may do, importable without torch."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tasks.experiment.signatures import ConfigError


def fails_on_one(folder: Path, how: str) -> dict[str, str]:
    rank = os.environ["LOCAL_RANK"]
    if rank == "1" and how == "raises":
        raise ConfigError("model.width: expected at least 1, found 0")
    if rank == "1" and how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if rank == "0" and how != "works":
        signal.pause()
    return {"rank": rank, "of": os.environ["WORLD_SIZE"]}
