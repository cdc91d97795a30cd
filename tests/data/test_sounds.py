"""Melodies as sounds: the pitch that is played, the length, and the bound on both."""

from __future__ import annotations

import io
import wave

import numpy as np

from data.pairs.sounds import LONGEST, QUARTER, RATE, played


def heard(content: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(content)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (RATE, 1, 2)
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32767


def test_a_note_sounds_at_its_pitch_for_its_length():
    sound = heard(played(np.array([[69, 3, 4]], np.float32)))
    assert len(sound) == 4 * QUARTER * RATE + 1
    loudest = np.abs(np.fft.rfft(sound)).argmax() * RATE / len(sound)
    assert abs(loudest - 440) < 1
    assert abs(sound[0]) < 0.01, "it begins softly"


def test_a_rest_is_silent_and_a_long_melody_is_cut():
    notes = np.array([[60, 0, 1], [64, 2, 1], [60, 4, 1000], [60, 2000, 1]], np.float32)
    sound = heard(played(notes))
    assert len(sound) == LONGEST * RATE + 1
    assert np.abs(sound[round(1.2 * QUARTER * RATE) : round(1.8 * QUARTER * RATE)]).max() == 0
    assert np.abs(sound[round(4.1 * QUARTER * RATE) : round(5 * QUARTER * RATE)]).max() > 0.2


def test_no_note_is_silence():
    assert not heard(played(np.empty((0, 3), np.float32))).any()
