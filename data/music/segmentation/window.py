"""What the learned segmenter sees of each place: the cues of a window of notes, repetition, place in bar and song."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from data.music.melody import TICKS, Melody, bar_ticks
from data.music.segmentation.cues import cues
from data.music.segmentation.programme import LONGEST, TUNED, best_boundaries, gains, length_cost

REACH = 3
LONGEST_REPEAT = 16
_FAR = 99.0


def windows(melody: Melody) -> Float[np.ndarray, "p f"]:
    """Features of every place between two notes; the same for a melody in another key.

    Per place of the window of seven: gap, length, rest and interval of the notes, local change, repetition. Alone: how
    long the music before and after the place repeats elsewhere, with and without pitch; the degrees of both notes above
    the last note; place in the bar, in groups of two and four bars and in the song; what the dynamic programme says
    under both weights.
    """
    own = cues(melody)
    places = len(own.ioi)
    mean = own.ioi.mean() if places else 1.0
    columns = [
        np.log(np.maximum(own.gap, 0.05)),
        np.log(own.ioi / mean),
        own.rest / mean,
        own.interval.astype(float),
        np.abs(own.interval).astype(float),
        own.change,
        own.parallel,
    ]
    wide = [_shifted(column, by) for column in columns for by in range(-REACH, REACH + 1)]
    rhythm = np.unique(own.ioi, return_inverse=True)[1]
    line = np.unique(np.column_stack([own.ioi, own.interval]), axis=0, return_inverse=True)[1].reshape(-1)
    for code in (rhythm, line):
        wide += [_repeats(code, ahead=True), _repeats(code, ahead=False)]
    wide += [np.argsort(np.argsort(-own.gap, kind="stable"), kind="stable") / max(places, 1)]
    degree = (melody.pitch - melody.pitch[-1]) % 12.0
    wide += [degree[:-1], degree[1:]]
    bar = float(
        bar_ticks(melody.metre) if melody.metre else np.median(np.diff(melody.bars, append=melody.bars[-1] + 96))
    )
    position, since = melody.position[1:], melody.onset[1:] - melody.bars[0]
    wide += [own.same_place.astype(float), position / bar, ((position - melody.position[0]) % bar) / bar]
    wide += [(since % (bars * bar)) / bar for bars in (2, 4)]
    wide += [np.arange(1.0, places + 1), np.arange(float(places), 0.0, -1.0), np.full(places, mean / TICKS)]
    for weights in TUNED.values():
        worth = gains(melody, weights)
        found = np.flatnonzero(best_boundaries(worth, length_cost(min(LONGEST, len(melody)), weights)))
        away = np.abs(np.arange(places)[:, None] - found[None, :]).min(axis=1, initial=_FAR)
        wide += [worth, away.astype(float)]
    return np.column_stack(wide).reshape(places, -1)


def _shifted(column: Float[np.ndarray, " p"], by: int) -> Float[np.ndarray, " p"]:
    """The column `by` places later; NaN beyond the song."""
    padded = np.full(len(column) + 2 * REACH, np.nan)
    padded[REACH : REACH + len(column)] = column
    return padded[REACH + by : REACH + by + len(column)]


def _repeats(code: Int[np.ndarray, " p"], ahead: bool) -> Float[np.ndarray, " p"]:
    """Longest run of steps that begins after (ahead) or ends before each place and occurs elsewhere.

    At most `LONGEST_REPEAT`; the step over the place itself belongs to neither.
    """
    if not ahead:
        return _repeats(code[::-1], ahead=True)[::-1]
    places = len(code)
    run = np.zeros((places + 1, places + 1), np.int8)
    same = code[:, None] == code[None, :]
    np.fill_diagonal(same, False)
    for at in range(places - 1, -1, -1):
        run[at, :-1] = np.where(same[at], np.minimum(1 + run[at + 1, 1:], LONGEST_REPEAT), 0)
    return run.max(axis=1)[1:].astype(float)
