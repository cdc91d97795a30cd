"""The command `retrieval`, called in this process."""

from __future__ import annotations

import sys

import pytest

from tasks.retrieval.cli import main


def retrieval(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Its exit code."""
    monkeypatch.setattr(sys, "argv", ["retrieval", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)
