"""Streams, reads and summaries: order, absence, padding, errors."""

from __future__ import annotations

import pytest
import torch

from fusion.block import Block, FeedForward
from fusion.core import FusionCore, Line, Stream
from fusion.operators import CoAttention, Dense
from fusion.summary import GatedPooling, Mean, Summary
from fusion.tokens import Tokens

W = 16


def tokens(rng: torch.Generator, *lengths: int, n: int = 6) -> Tokens:
    keep = torch.arange(n) < torch.tensor(lengths)[:, None]
    return Tokens(torch.randn(len(lengths), n, W, generator=rng), keep)


def core(**options: bool) -> FusionCore:
    torch.manual_seed(0)
    return FusionCore(
        W,
        {
            "genes": Stream(summary=Mean()),
            "slide": Stream(Block(W, Dense(W, 2), FeedForward(W, 32)), summary=GatedPooling(W, 8)),
            "found": Stream(summary=Mean()),
        },
        {"genes <- slide": Block(W, Dense(W, 2)), "found = slide <- genes + slide": CoAttention(W, 1)},
        **options,
    )


@pytest.mark.parametrize(
    ("text", "result", "reader", "sources"),
    [
        ("genes <- slide", "genes", "genes", ("slide",)),
        ("new=genes<-slide+age", "new", "genes", ("slide", "age")),
        ("  a = b <- c + d + e ", "a", "b", ("c", "d", "e")),
    ],
)
def test_a_read_is_parsed(text: str, result: str, reader: str, sources: tuple[str, ...]):
    line = Line.parse(text)
    assert (line.result, line.reader, line.sources, line.updates) == (result, reader, sources, result == reader)


def test_the_core_is_its_reads_in_order(rng: torch.Generator):
    model = core()
    genes, slide = tokens(rng, 6, 4), tokens(rng, 3, 6)
    fused = model({"genes": genes, "slide": slide})
    read = model.streams["slide"].blocks[0](slide)
    updated = model.ops[0](genes, read)
    torch.testing.assert_close(fused.tokens["genes"].x, updated.x)
    torch.testing.assert_close(fused.summaries["genes"], Mean()(updated))
    from_both = Dense.forward  # the joined sources are one softmax over genes and slide
    assert from_both is not None
    joined = Tokens(torch.cat([updated.x, read.x], dim=1), torch.cat([updated.keep, read.keep], dim=1))
    torch.testing.assert_close(
        fused.tokens["found"].x[slide.keep], model.ops[1](read, joined).y[slide.keep], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("garbage", [1e9, float("nan"), float("inf")])
def test_what_stands_in_the_padding_reaches_nothing(rng: torch.Generator, garbage: float):
    model = core()
    streams = {"genes": tokens(rng, 6, 4), "slide": tokens(rng, 3, 0)}
    spoilt = {
        name: stream.with_x(stream.x.masked_fill(~stream.keep[..., None], garbage)) for name, stream in streams.items()
    }
    before, after = model(streams), model(spoilt)
    for name in before.summaries:
        torch.testing.assert_close(after.summaries[name], before.summaries[name], rtol=0, atol=0)
    sum(vector.sum() for vector in after.summaries.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_an_absent_source_leaves_its_reader_as_it_was(rng: torch.Generator):
    model = core()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3)
    genes = tokens(rng, 6, 4)
    fused = model({"genes": genes, "slide": tokens(rng, 0, 0)})
    torch.testing.assert_close(fused.tokens["genes"].x, genes.zeroed().x, rtol=0, atol=0)
    assert not fused.present["found"].any()


def test_the_summary_of_an_absent_stream_is_learned(rng: torch.Generator):
    model = core()
    with torch.no_grad():
        model.absent["slide"].fill_(7.0)
    fused = model({"genes": tokens(rng, 6, 4), "slide": tokens(rng, 3, 0)})
    assert (fused.summaries["slide"][1] == 7).all()
    assert (fused.summaries["slide"][0] != 7).all()
    fused.summaries["slide"].sum().backward()
    assert (model.absent["slide"].grad == 1).all()
    assert len(core(learn_absent=False).absent) == 0


def test_one_patient_does_not_see_another(rng: torch.Generator):
    model = core()
    genes, slide = tokens(rng, 6, 4, 5), tokens(rng, 3, 6, 0)
    together = model({"genes": genes, "slide": slide})
    for i in range(3):
        one = model({k: Tokens(v.x[i : i + 1], v.keep[i : i + 1]) for k, v in (("genes", genes), ("slide", slide))})
        for name, vector in one.summaries.items():
            torch.testing.assert_close(vector[0], together.summaries[name][i], rtol=1e-5, atol=1e-6)


def test_first_rows_are_the_first_rows(rng: torch.Generator):
    torch.manual_seed(0)
    for norm in ("pre", "post"):
        block = Block(W, Dense(W, 2), FeedForward(W, 32), norm=norm)  # type: ignore[arg-type]
        held = tokens(rng, 6, 4)
        torch.testing.assert_close(block.first_rows(held, 2).x, block(held).x[:, :2], rtol=1e-5, atol=1e-6)


def test_every_reader_knows_its_site():
    sites = {op.site for op in core().modules() if hasattr(op, "site")}
    assert sites == {"genes <- slide/0", "found = slide <- genes + slide/0", "slide/0"}


@pytest.mark.parametrize("summary", [Mean(), GatedPooling(W, 8)])
def test_a_summary_has_no_order_and_does_not_count_copies(summary: Summary, rng: torch.Generator):
    held = tokens(rng, 6, 4)
    order = torch.randperm(6, generator=rng)
    shuffled = Tokens(held.x[:, order], held.keep[:, order])
    doubled = Tokens(torch.cat([held.x, held.x], 1), torch.cat([held.keep, held.keep], 1))
    for other in (shuffled, doubled):
        torch.testing.assert_close(summary(other), summary(held), rtol=1e-5, atol=1e-6)


def test_pooling_weights_are_a_distribution(rng: torch.Generator):
    held = tokens(rng, 6, 4, 0)
    weights = GatedPooling(W, 8).weights(held)
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 1.0, 0.0]))
    assert (weights[~held.keep] == 0).all()


@pytest.mark.parametrize(
    ("reads", "text"),
    [
        (["genes reads slide"], "cannot read 'genes reads slide'; expected 'genes <- slide'"),
        (["genes <- brain"], r"'genes <- brain' uses 'brain'; streams at that point: \['genes', 'slide'\]"),
        (["slide = genes <- slide"], "'slide = genes <- slide' creates 'slide', which already exists"),
        (["a = genes <- b", "b = slide <- genes"], "'a = genes <- b' uses 'b'"),
    ],
)
def test_a_wrong_read_is_named(reads: list[str], text: str):
    known = {"genes": Stream(), "slide": Stream()}
    if reads == ["slide = genes <- slide"]:
        reads = ["x = genes <- slide", "x = genes <- slide "]
        text = "creates 'x', which already exists"
    with pytest.raises(ValueError, match=text):
        FusionCore(W, known, {read: Dense(W, 2) for read in reads})


@pytest.mark.unchecked
def test_missing_streams_are_named(rng: torch.Generator):
    with pytest.raises(ValueError, match=r"got streams \['genes'\]; expected \['genes', 'slide'\]"):
        core()({"genes": tokens(rng, 6)})
    with pytest.raises(ValueError, match="norm='middle'; expected 'pre' or 'post'"):
        Block(W, Dense(W, 2), norm="middle")  # type: ignore[arg-type]
