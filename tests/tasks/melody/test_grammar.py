"""The grammar's promises hold whatever the weights: every sample is checked by a reader that knows no grammar."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest

from data.errors import DataError
from data.music.key import Key
from data.music.melody import Melody
from data.music.midi_out import write_midi
from tasks.melody.compose import compose
from tasks.melody.composed import Composed
from tasks.melody.frame import Frame, frame_of, infilling, without_skeleton
from tasks.melody.generate import frame_skeleton
from tasks.melody.promises import broken
from tasks.melody.rules import Rules, Sampling
from tests.tasks.melody.tunes import network, random_frame, songs

RULES = Rules()


def made(frames: list[Frame], spread: float = 2.0, rules: Rules = RULES, seed: int = 1) -> list[Composed]:
    return compose(network(seed, spread), frames, Sampling(seed, top_p=1.0), rules)


def sample(count: int, seed: int) -> list[Frame]:
    random = np.random.default_rng(seed)
    return [random_frame(random, number) for number in range(count)]


@pytest.mark.parametrize("spread", [0.0, 0.5, 5.0])
def test_random_weights_break_no_promise(spread: float):
    frames = sample(28, int(10 * spread))
    for one, frame in zip(made(frames, spread), frames, strict=True):
        assert broken(one.melody, frame, RULES) == []
        assert frame_skeleton(one.melody, frame).sum() == len(frame.onset)


@pytest.mark.slow
def test_ten_thousand_samples_of_random_weights_break_no_promise():
    for seed in range(20):
        frames = sample(500, 100 + seed)
        faults = [fault for one, frame in zip(made(frames, 0.5 * seed, seed=seed), frames, strict=True)
                  for fault in broken(one.melody, frame, RULES)]  # fmt: skip
        assert faults == []


def test_without_a_skeleton_the_bars_are_filled_to_their_end():
    frames = [without_skeleton(frame) for frame in sample(14, 5)]
    for one, frame in zip(made(frames), frames, strict=True):
        assert broken(one.melody, frame, RULES) == []
        assert not one.skeleton.any()
        assert one.melody.end > frame.bars[-1]


def test_range_and_any_scale_are_kept():
    rules = Rules(low=60, high=67, scale="any")
    frames = [replace(frame, pitch=frame.pitch.clip(60, 67)) for frame in sample(14, 6)]
    for one, frame in zip(made(frames, rules=rules), frames, strict=True):
        assert broken(one.melody, frame, rules) == []
        assert one.melody.pitch.min() >= 60
        assert one.melody.pitch.max() <= 67


def test_infilling_keeps_every_note_outside_and_the_skeleton_inside():
    tunes = songs(8)
    frames = [infilling(song, frame_of(song, skeleton_every(song, 3)), 4, 9) for song in tunes]
    for one, frame, song in zip(made(frames), frames, tunes, strict=True):
        assert broken(one.melody, frame, RULES) == []
        outside = [(song.bar_of < 4) | (song.bar_of > 9), (one.melody.bar_of < 4) | (one.melody.bar_of > 9)]
        for field in ("onset", "duration", "pitch"):
            before, after = (getattr(m, field)[kept] for m, kept in zip((song, one.melody), outside, strict=True))
            assert np.array_equal(before, after)
    assert any(not np.array_equal(one.melody.pitch, song.pitch) for one, song in zip(made(frames), tunes, strict=True))


def skeleton_every(song: Melody, step: int) -> np.ndarray:
    marks = np.arange(len(song)) % step == 0
    marks[-1] = True
    return marks


def test_a_reader_of_broken_songs_finds_every_fault():
    song = songs(1)[0]
    frame = frame_of(song, skeleton_every(song, 4))
    assert broken(song, frame, RULES) == []
    faults = {
        "must come are not there": replace(song, pitch=song.pitch + 12),
        "leave the bars": replace(song, duration=np.append(song.duration[:-1], song.duration[-1] + 24)),
        "are not those of the frame": replace(song, metre=(3, 4)),
        "is not E:maj": replace(song),
        "is off the grid": replace(
            song, onset=song.onset + np.eye(len(song), dtype=int)[1], duration=song.duration - 1
        ),
    }
    for said, wrong in faults.items():
        other = replace(frame, key=Key.parse("E:maj")) if "E:maj" in said else frame
        assert any(said in fault for fault in broken(wrong, other, RULES)), said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pitch": np.array([60, 127])}, "127 at tick 24 is not in vocabulary"),
        ({"onset": np.array([0, 1])}, "60 at tick 0 leaves no room for a note of 3 ticks"),
        ({"onset": np.array([0, 9999])}, "62 at tick 9999 lies outside of the bars"),
    ],
)
def test_what_cannot_be_kept_is_named(change: dict, message: str):
    song = songs(1)[0]
    frame = Frame("f", np.array([0, 48]), 96, (2, 4), song.key, np.array([0, 24]), np.array([60, 62]), np.array([0, 0]))
    with pytest.raises(DataError, match=message):
        made([replace(frame, **change)])


def test_an_impossible_range_is_named():
    with pytest.raises(DataError, match=r"no pitch of .* lies between 120 and 127; vocabulary"):
        made([without_skeleton(sample(1, 0)[0])], rules=Rules(low=120))


def test_a_metre_and_a_mode_that_the_vocabulary_lacks_are_named():
    frame = sample(1, 0)[0]
    with pytest.raises(DataError, match=r"metre 11/8 is not in vocabulary \w{12}; it has 2/4, 3/4"):
        made([replace(frame, metre=(11, 8))])
    weights = network()
    weights.vocabulary = replace(weights.vocabulary, modes=("gong", "maj"))
    with pytest.raises(DataError, match=r"key D:shang: mode shang is not in vocabulary \w{12}; it has gong"):
        compose(weights, [replace(frame, key=Key.parse("D:shang"))], Sampling(), RULES)


def test_every_file_read_back_by_two_libraries_gives_the_same_notes(tmp_path: Path):
    frames = sample(21, 9)
    for number, (one, frame) in enumerate(zip(made(frames), frames, strict=True)):
        path = tmp_path / f"{number}.mid"
        write_midi(path, one.melody, frame_skeleton(one.melody, frame))
        shift = -int(one.melody.bars[one.melody.bar_of[0]])
        wanted = [(o + shift, d, p) for o, d, p in zip(*(getattr(one.melody, f).tolist() for f in FIELDS), strict=True)]
        assert by_mido(path) == wanted
        assert by_pretty_midi(path) == wanted


FIELDS = ("onset", "duration", "pitch")


def by_mido(path: Path) -> list[tuple[int, int, int]]:
    file = mido.MidiFile(path)
    (track,) = [track for track in file.tracks if track.name == "melody"]
    now, open_, notes = 0, {}, []
    for message in track:
        now += message.time
        if message.type == "note_on" and message.velocity:
            open_[message.note] = now
        elif message.type in ("note_on", "note_off"):
            start = open_.pop(message.note)
            notes.append((start // 20, (now - start) // 20, message.note))
    return sorted(notes)


def by_pretty_midi(path: Path) -> list[tuple[int, int, int]]:
    midi = pretty_midi.PrettyMIDI(str(path))
    (track,) = [track for track in midi.instruments if track.name == "melody"]
    ticks = [(midi.time_to_tick(note.start), midi.time_to_tick(note.end), note.pitch) for note in track.notes]
    return sorted((round(start / 20), round((end - start) / 20), pitch) for start, end, pitch in ticks)
