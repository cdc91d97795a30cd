"""Folk songs of the Essen collection: the data set's files, the user's ABC files or the installed music21."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from data.errors import DataError
from data.music.abc import Tune
from data.music.abc_books import music21_songs, read_books
from data.music.book import PARTS, Part, SongBook, SongSource, split_by_opening
from data.music.key import MODES, Key
from data.music.melody import Melody
from data.music.song_files import read_songs
from data.sources import data_home, resolve

Culture = Literal["han", "german"]
FILES: dict[Culture, tuple[str, ...]] = {"han": ("han",), "german": ("erk", "kinder")}
"""Beginnings of the names of a culture's ABC files."""
CREDIT = "Essen folk song collection, as packed in music21: non-commercial use only"
_BY_DEGREE = {MODES[mode]: mode for mode in ("gong", "shang", "jue", "zhi", "yu")}


class EssenSongs(SongSource):
    """Folk songs with human phrase marks.

    The notes are the data set's (`fusion data import essen`) in the published split; where that is not on this machine,
    or `notes` says so, they are parsed from ABC and split 80/10/10 by their openings (`split_by_opening`), which are
    other parts than the published ones: the account says which were taken.

    The key of a Han song is its mode by the last note: the notated tonic is the gong (degree 1), and a song that ends
    on degree 5 is in zhi; one that ends off the five degrees counts as gong. German songs are notated as major.

    Args:
        culture: han (1,224 songs) or german (1,994)
        only: xiaodiao keeps the 655 Han "small tunes"
        wrapped: songs of which single notes stand an octave too low in the source (159 Han, 4 German): keep or drop;
            of ABC files those that are `suspected`
        notes: JSON file, or folder or zip of ABC files; `music21` = those of the installed music21; None = the data set
            where it is, else music21
    """

    def __init__(
        self,
        culture: Culture = "han",
        only: Literal["xiaodiao"] | None = None,
        wrapped: Literal["keep", "drop"] = "drop",
        notes: str | None = None,
    ):
        if culture not in get_args(Culture):
            raise ValueError(f"culture={culture!r}: expected han or german")
        if only == "xiaodiao" and culture != "han":
            raise ValueError(f"only='xiaodiao': {culture} songs have none; take culture: han")
        self.culture, self.only, self.wrapped, self.notes = culture, only, wrapped, notes

    def load(self) -> SongBook:
        songs, split, account = self._read()
        found = len(songs)
        if self.only == "xiaodiao":
            songs = [song for song in songs if "xiaodiao" in song.about.get("genre", "").lower()]
            account.append(f"{found - len(songs)} songs of other genres are left out, {len(songs)} xiaodiao are kept")
        if self.wrapped == "drop":
            whole = [song for song in songs if "octave_wrap" not in song.about]
            if len(whole) < len(songs):
                account.append(f"{len(songs) - len(whole)} songs with notes in the wrong octave are left out")
            songs = whole
        return SongBook(f"essen {self.only or self.culture}", songs, split, account)

    def _read(self) -> tuple[list[Melody], dict[str, Part], list[str]]:
        file = f"music/essen_{self.culture}.json.xz"
        if self.notes is None and (data_home() / file).exists():
            return self._published(data_home() / file)
        if self.notes not in (None, "music21") and (place := resolve(self.notes)).suffix in (".xz", ".json"):
            return self._published(place)
        if self.notes not in (None, "music21"):
            return self._parsed(resolve(self.notes))
        try:
            return self._parsed(music21_songs())
        except DataError as fault:
            raise DataError(
                f"{data_home() / file} is not here (`fusion data import essen --from FOLDER`), and {fault}"
            ) from None

    def _published(self, path: Path) -> tuple[list[Melody], dict[str, Part], list[str]]:
        songs = [self._with_mode(song) for song in read_songs(path)]
        said = {song.name: song.about.get("split") for song in songs}
        split: dict[str, Part] = {name: part for name, own in said.items() for part in PARTS if own == part}
        if strange := sorted(said.keys() - split.keys()):
            raise DataError(f"{path}: {strange[0]} has no split; take essen_{self.culture}.json.xz or the ABC files")
        return songs, split, [f"{len(songs)} songs in the published split ({path.name})", CREDIT]

    def _parsed(self, place: Path) -> tuple[list[Melody], dict[str, Part], list[str]]:
        songs, account = [], []
        for name, tunes in read_books(place):
            if name.startswith(FILES[self.culture]):
                for tune in tunes.values():
                    try:
                        song = self._with_mode(tune.melody(f"{name.removesuffix('.abc')}-{tune.number}"))
                        marks = {"octave_wrap": "suspected"} if self.culture == "han" and suspected(tune, song) else {}
                        songs.append(replace(song, about={**song.about, **marks}))
                    except DataError as fault:
                        account.append(f"left out: {name} {fault}")
        if not songs:
            raise DataError(f"{place}: no {self.culture} songs ({', '.join(FILES[self.culture])}*.abc) in it")
        account = [f"{len(songs)} songs from {place.name}, split by their openings", CREDIT, *account]
        return songs, split_by_opening(songs), account

    def _with_mode(self, song: Melody) -> Melody:
        if self.culture != "han" or song.key is None:
            return song
        return replace(song, key=mode_by_final(song.key.tonic, int(song.pitch[-1])))


def suspected(tune: Tune, song: Melody) -> bool:
    """Whether single notes of a Han song are likely an octave too low: in A, Bb or Ab two leaps of 10 or 11 semitones.

    Against the data set's marks, which come from another edition: precision .87, recall .86.
    """
    leaps = np.abs(np.diff(song.pitch))
    return tune.fields.get("K", "").split()[:1] in (["A"], ["Bb"], ["Ab"]) and int(np.isin(leaps, (10, 11)).sum()) >= 2


def mode_by_final(gong: int, final: int) -> Key:
    """The pentatonic mode on the last note.

    Args:
        gong: pitch class of degree 1
        final: last pitch
    """
    mode = _BY_DEGREE.get((final - gong) % 12)
    return Key(gong, "gong") if mode is None else Key(final % 12, mode)
