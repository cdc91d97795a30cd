"""Which held-out songs generated ones are judged beside, and what a unit generates from their skeletons."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.music.book import Part, SongBook
from data.music.melody import Melody
from data.music.song_files import as_json, read_songs
from tasks.experiment.folder import write_whole
from tasks.melody.composed import Composed, Composer
from tasks.melody.frame import Frame
from tasks.melody.promises import broken
from tasks.melody.rules import Rules, Sampling
from tasks.melody.vocabulary import Vocabulary

SONGS, BINDING = "songs.json", "rules.csv"


@dataclass(frozen=True)
class Judged:
    """What is generated to be judged beside real songs.

    Attributes:
        songs: held-out songs whose skeletons are given back as melodies; 0 = nothing is generated
        genre: only songs of which this is part of the genre, `xiaodiao`; null = any song
        seed: of the draws
        temperature: below 1 = likelier notes
        top_p: choose among the likeliest values that hold this share of the probability
        shown: how many songs the report plays
    """

    songs: int = 100
    genre: str | None = None
    seed: int = 1
    temperature: float = 1.0
    top_p: float = 0.9
    shown: int = 3

    def __post_init__(self) -> None:
        if self.songs < 0 or self.shown < 0 or self.songs in (1, 2):
            raise ValueError(
                f"judged: songs={self.songs}, shown={self.shown}; expected at least 3 songs (0 = nothing is generated)"
            )
        self.sampling  # noqa: B018  a wrong temperature is told at once

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.seed, self.temperature, self.top_p)

    def suits(self, song: Melody) -> bool:
        """Whether a song is of the genre."""
        return self.genre is None or self.genre.lower() in song.about.get("genre", "").lower()


JUDGED = Judged()


def judged_songs(book: SongBook, judged: Judged) -> list[Melody]:
    """The songs to be judged: of the test part, in which `with_judged` put enough of them."""
    return _suiting(book, judged, "test")[: judged.songs]


def with_judged(book: SongBook, judged: Judged) -> SongBook:
    """The book with every judged song in the test part, so that no choice sees one; training songs stay as they are.

    Where the test part has too few, songs of the validation part are moved, at most every other one.
    """
    lacking = max(0, judged.songs - len(_suiting(book, judged, "test")))
    chosen = _suiting(book, judged, "valid")[: min(lacking, len(book.part("valid")) // 2)] if lacking else []
    if not chosen:
        return book
    said = f"{len(chosen)} songs of the validation part are judged with the test songs, so nothing is chosen on them"
    split = {**book.split, **{song.name: "test" for song in chosen}}
    return replace(book, split=split, account=[*book.account, said])  # type: ignore[arg-type]


def with_keys(book: SongBook) -> SongBook:
    """The book without songs of unknown key: pitches are counted from the key."""
    unknown = [song.name for song in book.songs if song.key is None]
    if not unknown:
        return book
    few = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
    said = f"left out: {len(unknown)} songs whose key is unknown ({few}); JSON and ABC files can name it"
    songs = [song for song in book.songs if song.key is not None]
    split = {song.name: book.split[song.name] for song in songs}
    return replace(book, songs=songs, split=split, account=[*book.account, said])


def _suiting(book: SongBook, judged: Judged, part: Part) -> list[Melody]:
    vocabulary = Vocabulary.of(book.part("train"))
    return [song for song in book.part(part) if judged.suits(song) and not vocabulary.lacks(song)]


def others(book: SongBook, judged: Judged, count: int) -> list[Melody]:
    """Training songs of the genre, drawn by the seed: what real songs reach beside the judged ones."""
    songs = [song for song in book.part("train") if judged.suits(song)]
    order = np.random.default_rng(judged.seed).permutation(len(songs))
    return [songs[at] for at in order[:count]]


def generate(folder: Path, model: Composer, book: SongBook, judged: Judged) -> dict[str, Any]:
    """Write the songs that a model makes of the judged skeletons, and how often each rule bound it.

    Returns:
        facts for done.json: songs, notes, broken promises
    """
    rules = Rules()
    frames = model.frames(judged_songs(book, judged))
    composed = model.compose(frames, judged.sampling, rules)
    content = [as_json(one.melody) | {"skeleton": one.skeleton.astype(int).tolist()} for one in composed]
    write_whole(folder / SONGS, json.dumps({"ticks_per_quarter": 24, "songs": content}))
    write_whole(folder / BINDING, binding(composed).to_csv(index=False))
    faults = [
        fault for one, frame in zip(composed, frames, strict=True) for fault in faults_of(one, frame, model, rules)
    ]
    return {
        "songs": len(composed),
        "notes": sum(len(one.melody) for one in composed),
        "broken": len(faults),
        "promised": model.keeps_skeletons,
    }


def faults_of(one: Composed, frame: Frame, model: Composer, rules: Rules) -> list[str]:
    """Promises that a generated song breaks; a model that promises nothing breaks none."""
    return broken(one.melody, frame, rules) if model.keeps_skeletons else []


def binding(composed: list[Composed]) -> pd.DataFrame:
    """Per rule: choices, how many were overruled, and the mean probability of what was illegal."""
    rows: dict[str, dict[str, float]] = {}
    for one in composed:
        for rule, bound in one.bound.items():
            row = rows.setdefault(rule, dict.fromkeys(asdict(bound), 0.0))
            for name, value in asdict(bound).items():
                row[name] += value
    table = pd.DataFrame(
        [{"rule": rule, **row} for rule, row in rows.items()], columns=["rule", "choices", "overruled", "removed"]
    )
    for name in ("choices", "overruled"):
        table[name] = table[name].astype(int)
    table["removed"] = table["removed"] / table["choices"].clip(lower=1)
    return table


def generated_songs(unit: Path) -> list[Melody]:
    """What `generate` wrote; empty when the unit generated nothing."""
    return read_songs(unit / SONGS) if (unit / SONGS).is_file() else []
