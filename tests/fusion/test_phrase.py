"""Phrase-masked cross attention: nothing crosses a phrase in the micro part; the gate opens the macro part."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fusion.operators import AcrossPhrases, Phrase, WithinPhrase
from fusion.tokens import Place, Tokens

W, H = 16, 4


def song(rng: torch.Generator, phrases: list[int]) -> Tokens:
    ids = torch.tensor(phrases)
    x = torch.randn(2, len(ids), W, generator=rng, dtype=torch.float64)
    return Tokens.full(x, Place(segment=ids.expand(2, -1)))


def test_another_phrase_changes_no_bit_and_gets_no_gradient(rng: torch.Generator):
    op = Phrase(W, H, macro=False).double()
    melody, skeleton = song(rng, [0, 0, 0, 1, 1, 1]), song(rng, [0, 0, 1, 1, 1])
    x = skeleton.x.clone().requires_grad_()
    before = op(melody, skeleton.with_x(x)).y[:, :3]
    before.sum().backward()
    assert x.grad[:, 2:].eq(0).all()
    assert x.grad[:, :2].abs().sum() > 0
    order = torch.tensor([0, 1, 4, 2, 3])
    changed = Tokens.full(skeleton.x[:, order] * 3, Place(segment=skeleton.place.segment))
    changed = changed.with_x(torch.cat([skeleton.x[:, :2], changed.x[:, 2:]], 1))
    assert torch.equal(op(melody, changed).y[:, :3], before)


def test_a_phrase_without_source_reads_exactly_nothing(rng: torch.Generator):
    op = Phrase(W, H, macro=False).double()
    y = op(song(rng, [0, 0, 1, 1, 2]), song(rng, [0, 2, 2])).y
    assert y[:, 2:4].eq(0).all()
    assert y[:, [0, 1, 4]].abs().sum(-1).gt(0).all()


@pytest.mark.parametrize("reach", [2, 5])
def test_a_reach_over_all_phrases_is_plain_cross_attention(reach: int, rng: torch.Generator):
    op, one = Phrase(W, H, macro=False, reach=reach).double(), Phrase(W, H, macro=False).double()
    one.load_state_dict(op.state_dict())
    melody, skeleton = song(rng, [0, 0, 1, 1, 2]), song(rng, [0, 1, 2, 2])
    flat = [replace(t, place=Place(segment=torch.zeros_like(t.place.segment))) for t in (melody, skeleton)]
    torch.testing.assert_close(op(melody, skeleton).y, one(*flat).y)


def test_a_closed_gate_leaves_the_micro_part_and_an_open_one_adds_the_macro_part(rng: torch.Generator):
    op = Phrase(W, H, phrases=3).double()
    melody, skeleton = song(rng, [0, 0, 1, 1, 2]), song(rng, [0, 1, 2, 2])
    micro, macro = op.micro(melody, skeleton).y, op.macro(melody, op.summaries(skeleton)).y
    for bias, want in ((-1e9, micro), (1e9, micro + macro)):
        with torch.no_grad():
            op.gate.weight.zero_()
            op.gate.bias.fill_(bias)
        read = op(melody, skeleton)
        torch.testing.assert_close(read.y, want)
        assert read.extras["gate"].shape == (2, 5, W)


def test_a_summary_is_one_token_per_phrase_and_absent_phrases_are_padding(rng: torch.Generator):
    op, skeleton = Phrase(W, H, phrases=4).double(), song(rng, [0, 2, 2])
    skeleton = replace(skeleton, keep=torch.tensor([[True, True, True], [False, True, True]]))
    summaries = op.summaries(skeleton)
    assert summaries.keep.tolist() == [[True, False, True, False], [False, False, True, False]]
    alone = Tokens(skeleton.x[:, 1:], skeleton.keep[:, 1:], Place(segment=skeleton.place.segment[:, 1:]))
    torch.testing.assert_close(op.summaries(alone).x[:, 2], summaries.x[:, 2])


@pytest.mark.parametrize("phrases", [[0, 9], [-1, 0]])
def test_a_phrase_number_out_of_range_is_named(phrases: list[int], rng: torch.Generator):
    message = rf"source phrases are numbered {min(phrases)}\.\.{max(phrases)}; expected 0\.\.7\. Renumber"
    with pytest.raises(ValueError, match=message):
        Phrase(W, H, phrases=8).double()(song(rng, [0, 1]), song(rng, phrases))


@pytest.mark.parametrize(
    ("op", "needs_source"), [(Phrase(W, H), False), (WithinPhrase(W, H), False), (AcrossPhrases(W, H), True)]
)
def test_tokens_without_phrases_are_refused_with_the_remedy(op: WithinPhrase, needs_source: bool, rng: torch.Generator):
    bare = Tokens.full(torch.randn(1, 3, W, generator=rng))
    with pytest.raises(ValueError, match=r"query tokens have no place\.segment; expected the phrase of each token"):
        op(bare, bare if needs_source else None)


def test_a_negative_reach_is_refused():
    with pytest.raises(ValueError, match=r"reach=-1 must be 0 \(own phrase only\) or more"):
        WithinPhrase(W, H, reach=-1)


@pytest.mark.parametrize("macro", [True, False])
def test_a_remembered_source_is_read_step_by_step_as_at_once(macro: bool, rng: torch.Generator):
    op = Phrase(W, H, macro=macro, phrases=4).double()
    melody, skeleton = song(rng, [0, 0, 1, 1, 3]), song(rng, [0, 1, 1, 2])
    skeleton = replace(skeleton, keep=torch.tensor([[True, True, True, True], [True, False, True, False]]))
    memory, rows = op.remembered(skeleton), []
    for at in range(5):
        new = Tokens(melody.x[:, at : at + 1], melody.keep[:, at : at + 1], melody.place[slice(at, at + 1)])
        read, memory = op.step(new, memory)
        rows.append(read.y)
    torch.testing.assert_close(torch.cat(rows, 1), op(melody, skeleton).y)
