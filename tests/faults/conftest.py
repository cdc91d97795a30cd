"""Everything here kills processes and fills disks: `make faults` runs it, `make test` does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.fuzz.tried  # noqa: F401  # registers the profile that `make faults` names

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """What a test counted, told to the summary of `make faults`."""
    counts: Counter[str] = Counter()
    yield counts
    request.node.user_properties.extend(counts.items())
