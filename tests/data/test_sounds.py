"""Melodies as sounds: the pitch that is played, the length, and the bound on both."""

from __future__ import annotations

import io
import wave

import numpy as np

from data.pairs.sounds import LONGEST, QUARTER, RATE, played


def heard(content: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(content)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (RATE, 1, 1)
        return np.frombuffer(sound.readframes(sound.getnframes()), np.uint8).astype(float) - 127.5


def test_a_note_sounds_at_its_pitch_for_its_length():
    wave_form = heard(played(np.array([[69, 3, 4]], np.float32)))
    assert len(wave_form) == 4 * QUARTER * RATE
    loudest = np.abs(np.fft.rfft(wave_form)).argmax() * RATE / len(wave_form)
    assert abs(loudest - 440) < 1
    assert abs(wave_form[0]) < 1, "it begins softly"


def test_a_rest_is_silent_and_a_long_melody_is_cut():
    notes = np.array([[60, 0, 1], [64, 2, 1], [60, 4, 1000]], np.float32)
    wave_form = heard(played(notes))
    assert len(wave_form) == LONGEST * RATE
    assert np.abs(wave_form[round(1.2 * QUARTER * RATE) : round(1.8 * QUARTER * RATE)]).max() < 1
    assert np.abs(wave_form[-2 * RATE :]).max() > 90


def test_no_note_is_no_sound():
    assert len(heard(played(np.empty((0, 3), np.float32)))) == 0
