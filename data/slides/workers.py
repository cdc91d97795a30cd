"""Processes that work for this one and end with it."""

from __future__ import annotations

import os
import threading
import time
import warnings
from concurrent.futures import Executor

from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

__all__ = ["BrokenProcessPool", "end_with_parent", "pool"]

IDLE_SECONDS = 600


def pool(workers: int) -> Executor:
    """Worker processes, started once and kept; replaced by new ones after one has died."""
    # joblib replaces a process whose memory has grown, and says so from a thread; no call is lost.
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
    executor: Executor = get_reusable_executor(max_workers=workers, initializer=end_with_parent, timeout=IDLE_SECONDS)
    return executor


def end_with_parent() -> None:
    """Let a worker end within a second of its parent: one that is killed cannot say so."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
