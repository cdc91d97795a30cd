"""A melody -> sound: plucked sines in NumPy, or fluidsynth with a sound font where both are installed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Shaped

from data.errors import DataError
from data.music.melody import TICKS, Melody
from data.music.midi_out import tempo_of, write_midi

RATE = 16_000
"""Samples a second."""
_PARTIALS = (1.0, 0.35, 0.15)
_ATTACK, _RELEASE, _FADE = 0.01, 0.05, 1.6
_LONGEST = 1800
_FONTS = (
    "/usr/share/sounds/sf2/default-GM.sf2",
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "/usr/share/soundfonts/default.sf2",
)


def synthesise(melody: Melody, tempo: float | None = None, rate: int = RATE) -> Float32[np.ndarray, " s"]:
    """Samples between -1 and 1, half a second of silence at the end.

    Args:
        melody: what sounds, from the beginning of the first note's bar on
        tempo: quarters per minute; None = its own, else 100
        rate: samples a second

    Raises:
        DataError: it would last over half an hour
    """
    second = TICKS * (tempo or tempo_of(melody)) / 60
    begin = int(melody.bars[melody.bar_of[0]])
    length = (melody.end - begin) / second + 0.5
    if length > _LONGEST:
        raise DataError(f"melody {melody.name}: {length:.0f} s of sound, over {_LONGEST}; cut it or raise the tempo")
    return sines((melody.onset - begin) / second, melody.duration / second, melody.pitch, length, rate)


def synthesise_voices(voices: Sequence[Melody], tempo: float, rate: int = RATE) -> Float32[np.ndarray, " s"]:
    """Voices that sound together from tick 0 on, half as loud as a melody each; half a second of silence at the end."""
    second = TICKS * tempo / 60
    length = max(voice.end for voice in voices) / second + 0.5
    each = [sines(voice.onset / second, voice.duration / second, voice.pitch, length, rate) for voice in voices]
    return np.clip(sum(each) / 2, -1, 1).astype(np.float32)


def sines(
    begin: Float[np.ndarray, " n"],
    length: Float[np.ndarray, " n"],
    pitch: Shaped[np.ndarray, " n"],
    seconds: float,
    rate: int = RATE,
) -> Float32[np.ndarray, " s"]:
    """Plucked tones of three partials, samples between -1 and 1; what is beyond the end is not played.

    Args:
        begin, length: of each note, seconds
        pitch: of each note, MIDI
        seconds: of the whole
        rate: samples a second
    """
    sound = np.zeros(int(seconds * rate) + 1, np.float32)
    for at, lasts, midi in zip(begin.tolist(), length.tolist(), pitch.tolist(), strict=True):
        first = int(at * rate)
        if first >= len(sound):
            continue
        t = np.arange(int((min(lasts, seconds) + _RELEASE) * rate)) / rate
        hertz = 440 * 2 ** ((midi - 69) / 12)
        tone = sum(
            part * np.sin(2 * np.pi * hertz * number * t)
            for number, part in enumerate(_PARTIALS, 1)
            if hertz * number < rate / 2
        )
        envelope = np.minimum(t / _ATTACK, 1) * np.exp(-_FADE * t) * np.minimum((t[-1] - t) / _RELEASE, 1)
        own = (0.45 * tone * envelope).astype(np.float32)[: len(sound) - first]
        sound[first : first + len(own)] += own
    return np.clip(sound, -1, 1)


def wav_bytes(sound: Float32[np.ndarray, " s"], rate: int = RATE) -> bytes:
    """A WAV file of 16-bit samples."""
    kept = io.BytesIO()
    with wave.open(kept, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return kept.getvalue()


def write_wav(path: Path, melody: Melody, tempo: float | None = None) -> str:
    """Write a WAV file; says what made it: `fluidsynth` or `sine`.

    fluidsynth is used where it is on the path with a sound font (`$SOUNDFONT`, or the distribution's).

    Raises:
        DataError: the folder is not there or not writable
    """
    font = sound_font()
    try:
        made = _by_fluidsynth(path, melody, tempo, font) if font else False
        if not made:
            path.write_bytes(wav_bytes(synthesise(melody, tempo)))
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror or problem}; name another place") from None
    return "fluidsynth" if made else "sine"


def sound_font() -> Path | None:
    """The sound font to use; None = there is none, or no fluidsynth."""
    if shutil.which("fluidsynth") is None:
        return None
    places = [Path(place) for place in (os.environ.get("SOUNDFONT"), *_FONTS) if place]
    return next((place for place in places if place.is_file()), None)


def _by_fluidsynth(path: Path, melody: Melody, tempo: float | None, font: Path) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        midi, sound = Path(folder, "melody.mid"), Path(folder, "melody.wav")
        write_midi(midi, melody, tempo=tempo)
        call = ["fluidsynth", "-ni", "-q", "-F", str(sound), "-r", "44100", str(font), str(midi)]
        try:
            subprocess.run(call, check=True, capture_output=True, timeout=120)
            with wave.open(str(sound)) as file:
                # With a damaged font it says nothing, and its file is silent.
                heard = any(file.readframes(file.getnframes()))
        except (OSError, EOFError, wave.Error, subprocess.SubprocessError):
            return False
        if heard:
            shutil.copyfile(sound, path)
    return heard
