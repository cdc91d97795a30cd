"""One side of something trained: what turns its raw items into the space that an index is searched in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from encoders.encoder import Encoder
from fusion.tokens import Tokens
from tasks.retrieval.experiment import RetrievalExperiment
from tasks.retrieval.two_towers import Encoded


@dataclass(frozen=True)
class Reader:
    """An encoder and what follows it.

    Attributes:
        which: left or right
        encoder: raw items -> tokens
        project: tokens -> items in the space
        experiment: whose collection the side belongs to
        condition: the attribute whose space it is; None = the shared space of two towers
    """

    which: str
    encoder: Encoder
    project: Callable[[Tokens], Encoded]
    experiment: RetrievalExperiment
    condition: str | None = None
