"""FusionCore: named streams, an ordered list of reads, a summary per stream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fusion.attention import AttentionOp
from fusion.block import Block
from fusion.summary import Summary
from fusion.tokens import Tokens, concatenate

READ = re.compile(r"^(?:(?P<result>\w+)\s*=\s*)?(?P<reader>\w+)\s*<-\s*(?P<sources>\w+(?:\s*\+\s*\w+)*)$")


class Stream(nn.Module):
    """What happens to the tokens of one stream when they appear: blocks, then a summary.

    Args:
        blocks: modules Tokens -> Tokens, in order
        summary: Tokens -> one vector; None = this stream is only read, never summarised
    """

    def __init__(self, *blocks: nn.Module, summary: Summary | None = None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.summary = summary

    @property
    def summarises(self) -> bool:
        """Whether this stream ends in a vector."""
        return self.summary is not None

    def forward(self, tokens: Tokens, read_later: bool = True) -> tuple[Tokens, Float[Tensor, "b w"] | None]:
        """Tokens for later readers, and the summary.

        Args:
            tokens: as they come from an encoder or a read
            read_later: False = only the summary will be used; a stream may then skip the rest
        """
        for block in self.blocks:
            tokens = block(tokens)
        return tokens, None if self.summary is None else self.summary(tokens)


@dataclass(frozen=True)
class Line:
    """One read, parsed: `result = reader <- source + source`; without a result the reader itself is updated."""

    text: str
    result: str
    reader: str
    sources: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Line:
        found = READ.match(text.strip())
        if found is None:
            raise ValueError(
                f"FusionCore: cannot read {text!r}; expected 'genes <- slide' or 'new = genes <- slide + age'"
            )
        sources = tuple(name.strip() for name in found["sources"].split("+"))
        return cls(text, found["result"] or found["reader"], found["reader"], sources)

    @property
    def updates(self) -> bool:
        """Whether the reader is changed in place."""
        return self.result == self.reader


@dataclass(frozen=True)
class Fused:
    """What the core hands to a head.

    Attributes:
        tokens: final tokens per stream
        summaries: one vector per summarised stream, `[b, w]`; the learned `absent` vector where the stream is absent
        present: which items have the stream, bool `[b]`
        losses: auxiliary losses of the reads, `"<read>/<name>"`
    """

    tokens: dict[str, Tokens]
    summaries: dict[str, Float[Tensor, "b w"]]
    present: dict[str, Bool[Tensor, " b"]]
    losses: dict[str, Tensor]


class FusionCore(nn.Module):
    """Streams read one another in the order listed.

    A read is written `"genes <- slide"` (gene tokens read slide tokens and are updated: the operator is a `Block`, or a
    bare operator whose result is added) or `"guess = slide <- genes"` (what was read becomes a new stream). Sources are
    joined with `+`. The blocks of a stream run when its tokens first appear; its summary is taken after the last read
    that updates it.

    Absent streams: a stream whose `keep` is all False for an item changes nothing that reads it, and its summary is a
    learned vector (zeros at the start) that never sees the stream's values. A new stream is present where its reader
    and at least one source are.

    Args:
        width: token width of every summarised stream
        streams: stream name -> its blocks and summary; a stream that a read creates may be listed too
        reads: read -> operator, in order; two reads may share one operator
        learn_absent: False keeps the summary of an absent stream at zeros
    """

    def __init__(
        self,
        width: int,
        streams: Mapping[str, Stream],
        reads: Mapping[str, AttentionOp | Block],
        learn_absent: bool = True,
    ):
        super().__init__()
        self.lines = [Line.parse(text) for text in reads]
        self.streams = nn.ModuleDict(streams)
        self.ops = nn.ModuleList(reads.values())
        created = {line.result for line in self.lines if not line.updates}
        self.inputs = [name for name in streams if name not in created]
        known = set(self.inputs)
        for line in self.lines:
            for name in (line.reader, *line.sources):
                if name not in known:
                    raise ValueError(f"FusionCore: {line.text!r} uses {name!r}; streams at that point: {sorted(known)}")
            if not line.updates and line.result in known:
                raise ValueError(f"FusionCore: {line.text!r} creates {line.result!r}, which already exists")
            known.add(line.result)
        summarised = [name for name, stream in streams.items() if stream.summarises] if learn_absent else []
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in summarised})
        for line, op in zip(self.lines, self.ops, strict=True):
            for layer, reader in enumerate(m for m in op.modules() if isinstance(m, AttentionOp)):
                reader.site = reader.site or f"{line.text}/{layer}"
        for name, stream in streams.items():
            for layer, reader in enumerate(m for m in stream.modules() if isinstance(m, AttentionOp)):
                reader.site = reader.site or f"{name}/{layer}"

    def forward(self, streams: Mapping[str, Tokens]) -> Fused:
        """Run the streams and reads.

        Args:
            streams: tokens of every input stream
        """
        if set(streams) != set(self.inputs):
            raise ValueError(f"FusionCore: got streams {sorted(streams)}; expected {sorted(self.inputs)}")
        tokens: dict[str, Tokens] = {}
        summaries: dict[str, Tensor] = {}
        losses: dict[str, Tensor] = {}
        for name in self.inputs:
            self._enter(name, streams[name], -1, tokens, summaries)
        for step, (line, op) in enumerate(zip(self.lines, self.ops, strict=True)):
            reader = tokens[line.reader]
            source = concatenate([tokens[name] for name in line.sources])
            if line.updates:
                tokens[line.result] = _update(op, reader, source, line, losses)
                stream = self._stream(line.result)
                if stream is not None and stream.summary is not None:
                    summaries[line.result] = stream.summary(tokens[line.result])
            else:
                self._enter(line.result, _create(op, reader, source, line, losses), step, tokens, summaries)
        present = {name: held.present for name, held in tokens.items()}
        for name, vector in summaries.items():
            stand_in = self.absent[name] if name in self.absent else vector.new_zeros(())
            summaries[name] = torch.where(present[name][:, None], vector, stand_in)
        return Fused(tokens, summaries, present, losses)

    def _stream(self, name: str) -> Stream | None:
        return cast(Stream, self.streams[name]) if name in self.streams else None

    def _enter(
        self, name: str, arriving: Tokens, step: int, tokens: dict[str, Tokens], summaries: dict[str, Tensor]
    ) -> None:
        stream = self._stream(name)
        if stream is None:
            tokens[name] = arriving
            return
        later = any(name in (line.reader, *line.sources) for line in self.lines[step + 1 :])
        tokens[name], summary = stream(arriving, read_later=later)
        if summary is not None:
            summaries[name] = summary


def _record(line: Line, found: Mapping[str, Tensor], losses: dict[str, Tensor]) -> None:
    losses.update({f"{line.text}/{name}": value for name, value in found.items()})


def _update(op: nn.Module, reader: Tokens, source: Tokens, line: Line, losses: dict[str, Tensor]) -> Tokens:
    """The reader's tokens, changed only where there is something to read."""
    if isinstance(op, Block):
        return op(reader, source)
    read = op(reader, source)
    _record(line, read.losses, losses)
    return reader.with_x(reader.zeroed().x + read.y.masked_fill(~source.present[:, None, None], 0.0))


def _create(op: nn.Module, reader: Tokens, source: Tokens, line: Line, losses: dict[str, Tensor]) -> Tokens:
    """New tokens, one per reader token, present where reader and source are."""
    keep = reader.keep & source.present[:, None]
    if isinstance(op, Block):
        return replace(op(reader, source), keep=keep).zeroed()
    read = op(reader, source)
    _record(line, read.losses, losses)
    return Tokens(read.y, keep, reader.place).zeroed()
