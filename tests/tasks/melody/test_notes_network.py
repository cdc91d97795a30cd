"""The network reads the past alone, step by step as at once, and knows of the skeleton what its phrases let through."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data.music.skeleton import skeleton
from tasks.melody.frame import frame_of, without_skeleton
from tasks.melody.models.notes_network import FIELDS, shifted
from tasks.melody.song_batch import FAR, Frames, Notes, frame_batch, note_batch, situation
from tests.tasks.melody.tunes import network, songs, vocabulary


@pytest.fixture
def batch() -> tuple[Frames, Notes]:
    tunes = songs(3)
    return frame_batch([frame_of(song, skeleton(song)) for song in tunes], vocabulary()), note_batch(tunes)


def test_a_note_changes_nothing_before_it(batch: tuple[Frames, Notes]):
    frames, notes = batch
    model, at = network(spread=0.3), 20
    before = model(frames, notes)
    pitch = notes.pitch.clone()
    pitch[:, at] += 2
    after = model(frames, replace(notes, pitch=pitch))
    for name in FIELDS:
        assert torch.equal(before[name][:, :at], after[name][:, :at]), name
    assert not torch.equal(before["pitch"][:, at:], after["pitch"][:, at:])


def test_decoding_step_by_step_is_the_full_forward(batch: tuple[Frames, Notes]):
    frames, notes = batch
    model = network(spread=0.3)
    sung, before, now = shifted(notes, frames, model.low)
    length = torch.searchsorted(model.durations, notes.duration)
    length = torch.cat([torch.full_like(length[:, :1], len(model.durations)), length[:, :-1]], dim=1)
    keep = torch.ones_like(notes.keep)
    with torch.no_grad():
        whole = model.hidden(frames, model.read(frames, now, sung, length, before, keep))
        state, rows = model.start(frames), []
        for at in range(notes.onset.shape[1]):
            one = slice(at, at + 1)
            tokens = model.read(frames, now[:, one], sung[:, one], length[:, one], before[:, one], keep[:, one])
            h, state = model.step(frames, tokens, state)
            rows.append(h)
    assert (torch.cat(rows, dim=1) - whole)[notes.keep].abs().max() < 1e-5 * whole.abs().max()


def test_a_song_does_not_depend_on_its_batch(batch: tuple[Frames, Notes]):
    frames, notes = batch
    model, shortest = network(spread=0.3), songs(3)[0]
    alone = model(frame_batch([frame_of(shortest, skeleton(shortest))], vocabulary()), note_batch([shortest]))
    together = model(frames, notes)
    for name in FIELDS:
        torch.testing.assert_close(together[name][0, : len(shortest)], alone[name][0], rtol=1e-4, atol=1e-4)
        assert together[name][~notes.keep].eq(0).all()


def test_a_tune_is_the_same_in_every_key(batch: tuple[Frames, Notes]):
    tunes = [song.transposed(2) if song.key and (song.key.gong + 6) % 12 < 10 else song for song in songs(3)]
    moved = frame_batch([frame_of(song, skeleton(song)) for song in tunes], vocabulary()), note_batch(tunes)
    model = network(spread=0.3)
    for name in FIELDS:
        torch.testing.assert_close(model(*moved)[name], model(*batch)[name])


def test_a_skeleton_note_of_another_phrase_reaches_the_micro_part_of_none():
    """Without guide and macro part, what is read of the skeleton comes from the own phrase alone."""
    model = network(spread=0.3)
    model.sizes = replace(model.sizes, guide=False)
    for block in model.across:
        block.op.with_macro = False
    for block in model.encoder:
        torch.nn.init.zeros_(block.op.out.weight)
    tune = songs(1)[0]
    frame = frame_of(tune, skeleton(tune))
    frames, notes = frame_batch([frame], vocabulary()), note_batch([tune])
    late = frames.phrase == frames.phrase.max()
    changed = replace(frames, pitch=torch.where(late, frames.pitch + 2, frames.pitch))
    first = (situation(frames, notes.onset, notes.pitch).phrase == 0)[0]
    before, after = model(frames, notes), model(changed, notes)
    assert torch.equal(before["pitch"][0, first], after["pitch"][0, first])
    assert not torch.equal(before["pitch"], after["pitch"])


def test_the_situation_counts_down_to_the_next_skeleton_note():
    tune = songs(1)[0]
    marks = skeleton(tune)
    frames = frame_batch([frame_of(tune, marks)], vocabulary())
    at = situation(frames, torch.from_numpy(tune.onset)[None], torch.from_numpy(tune.pitch)[None])
    due = tune.onset[marks]
    for note, tick in enumerate(tune.onset):
        following = due[due >= tick]
        assert at.until[0, note] == (following[0] - tick if len(following) else FAR)
        assert at.place[0, note] == tune.position[note]
        assert at.phrase[0, note] == tune.phrase[note]


def test_dropped_skeleton_notes_move_together(batch: tuple[Frames, Notes]):
    frames, _ = batch
    kept = torch.zeros_like(frames.keep)
    kept[:, ::2] = True
    fewer = frames.only(kept)
    for row in range(3):
        both = kept[row] & frames.keep[row]
        assert fewer.onset[row, : both.sum()].tolist() == frames.onset[row, both].tolist()
        assert fewer.onset[row, both.sum() :].eq(FAR).all()


def test_a_frame_without_skeleton_has_no_guide():
    tune = songs(1)[0]
    frames = frame_batch([without_skeleton(frame_of(tune, skeleton(tune)))], vocabulary())
    assert frames.onset.shape == (1, 1)
    assert not frames.present.any()
    at = situation(frames, torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long))
    assert at.until.eq(FAR).all()
    assert network()(frames, note_batch([tune]))["pitch"].isfinite().all()
