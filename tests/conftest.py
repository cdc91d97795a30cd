"""Fixtures every room shares."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Graph compilers and the shape checker do not mix."""
    for item in items:
        if "compile" in item.name:
            item.add_marker(pytest.mark.unchecked)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What the fault suite counted, over all its tests."""
    counts: Counter[str] = Counter()
    for ending in terminalreporter.stats.values():
        for report in ending:
            if getattr(report, "when", None) == "teardown":
                counts.update({name: n for name, n in report.user_properties if isinstance(n, int)})
    if counts and terminalreporter.config.getoption("--hypothesis-profile", None) == "faults":
        terminalreporter.section("counted")
        for name, count in sorted(counts.items()):
            terminalreporter.write_line(f"{count:>8,} {name}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data kept beside the checkout; absent outside the project's own machines."""
    folder = ROOT.parent / "shared" / "datasets"
    if not folder.is_dir():
        pytest.skip("real data sets are not beside this checkout")
    return folder


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(20261122)


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(20261122)
