"""One track of a MIDI file -> a melody: which track, one voice, the 24-tick grid, bars, key and phrase markers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Int

from data.errors import DataError
from data.music.melody import TICKS, Melody, Metre, bar_ticks, parse_metre
from data.music.midi_in import Midi, Reader, Track, read_midi
from data.music.voices import crowded, skyline

FEW = 0.05
"""Share of notes that may sound together with another in a track that still counts as one voice."""
MOST_BARS = 20_000
_PHRASE = re.compile(r"phrase\b", re.IGNORECASE)


def read_melody(path: Path, track: str | int | None = None, reader: Reader | None = None) -> Melody:
    """The melody of a MIDI file.

    Args:
        path: of the file
        track: name (any case) or number of the track, counted from 0 over those with notes; None = the one called
            melody, else the only one that is pitched
        reader: symusic or pretty_midi; None = symusic where it is installed

    Raises:
        DataError: no MIDI file, no such track, no note, several tracks to choose from, or chords
    """
    midi = read_midi(path, reader)
    try:
        return melody_of(midi, path.stem, track)
    except DataError as fault:
        raise DataError(f"{path}: {fault}") from None


def melody_of(midi: Midi, name: str, track: str | int | None = None) -> Melody:
    """The melody of what a file says; times are rounded to 24 ticks a quarter.

    Bars follow the time signatures (4/4 without one). Markers that begin with "phrase" begin phrases. Legato is cut;
    where few notes sound together (`FEW`) the higher is kept and `about["overlaps"]` says so.
    """
    chosen = choose_track(midi, track)
    spans = np.rint(chosen.spans * [TICKS / midi.ticks, TICKS / midi.ticks, 1]).astype(np.int64)
    spans[:, 1] = np.maximum(spans[:, 1], spans[:, 0] + 1)
    together = int(crowded(spans).sum())
    if together > FEW * len(spans):
        raise DataError(
            f"track {chosen.name!r} has chords ({together} of {len(spans)} notes sound with another); {_choice(midi)}"
        )
    onset, stop, pitch = skyline(spans).T
    end = int(stop[-1])
    marks = [(round(tick * TICKS / midi.ticks), upper, lower) for tick, upper, lower in midi.metres]
    bars, metre = lay_bars(marks, int(onset[0]), end)
    about = {"tempo": f"{midi.tempo:.6g}", "track": chosen.name}
    if together:
        about["overlaps"] = f"{together} notes sounded with another; the higher is kept"
    return Melody(
        name,
        onset,
        stop - onset,
        pitch,
        bars,
        metre,
        midi.keys[0][1] if midi.keys else None,
        _phrases([round(t * TICKS / midi.ticks) for t, text in midi.markers if _PHRASE.match(text)], onset),
        {part: text for part, text in about.items() if text},
    )


def choose_track(midi: Midi, track: str | int | None = None) -> Track:
    """The track that is asked for, or the only one it can be.

    Raises:
        DataError: none is pitched, there is no such track, or several could be meant
    """
    if not midi.tracks:
        raise DataError("no note in it; leave it out")
    if isinstance(track, str) and track.isdecimal():
        track = int(track)
    if isinstance(track, int):
        if not 0 <= track < len(midi.tracks):
            raise DataError(f"no track {track}; {_choice(midi)}")
        return midi.tracks[track]
    wanted = (track or "melody").casefold()
    named = [own for own in midi.tracks if own.name.casefold() == wanted]
    if track is not None and not named:
        raise DataError(f"no track {track!r}; {_choice(midi)}")
    pitched = named or [own for own in midi.tracks if not own.drum]
    if len(pitched) != 1:
        raise DataError(f"{len(pitched)} tracks could be the melody; {_choice(midi)}")
    return pitched[0]


def lay_bars(marks: Sequence[tuple[int, int, int]], begin: int, end: int) -> tuple[Int[np.ndarray, " m"], Metre | None]:
    """Where bars begin under time signatures, and the metre at `begin`.

    Args:
        marks: (tick, upper, lower) in order; 4/4 holds before the first. A signature begins a bar
        begin: tick of the first note
        end: tick at which the last note ends

    Raises:
        DataError: a signature that is no metre, or more than `MOST_BARS` bars
    """
    places: dict[int, Metre] = {0: (4, 4)}
    for tick, upper, lower in marks:
        if tick < end and (metre := parse_metre(f"{upper}/{lower}")) is not None:
            places[tick] = metre
    stops = [*sorted(places), end]
    parts = []
    for start, stop in pairwise(stops):
        length = bar_ticks(places[start])
        if (stop - start) > MOST_BARS * length:
            raise DataError(f"over {MOST_BARS} bars of {places[start][0]}/{places[start][1]}; correct the metre")
        parts.append(np.arange(start, stop, length, dtype=np.int64))
    bars = np.concatenate(parts)
    first = places[max(start for start in places if start <= begin)]
    return bars, first


def _phrases(starts: Sequence[int], onset: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"] | None:
    """Phrase of each note: a marker begins one at the first note at or after it."""
    if not starts:
        return None
    first = np.searchsorted(onset, sorted(starts))
    begins = np.zeros(len(onset) + 1, bool)
    begins[first] = True
    return np.cumsum(begins[:-1] & (np.arange(len(onset)) > 0))


def _choice(midi: Midi) -> str:
    told = [f"{row} {track.name!r} ({len(track.spans)} notes)" for row, track in enumerate(midi.tracks[:8])]
    more = f" and {len(midi.tracks) - 8} more" if len(midi.tracks) > 8 else ""
    return f"choose a track: {', '.join(told)}{more}"
