"""Room and tally of the laws of this folder."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from tests.fuzz.tried import Tried

ROOM = 6 << 30
"""Bytes of address space that a test may add: a header that asks for more must not end the process."""


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Iterator[Tried]:
    """What a law's cases did, told to the summary of `make faults`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, hard))
    calls = Tried()
    try:
        yield calls
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for end, count in calls.ends.items():
            request.node.user_properties.append((f"cases {end}", count))
