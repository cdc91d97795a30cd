"""Melodies in the common orchestration: what is run on which music, and what is said at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data.music.book import PARTS, Part, SongBook
from tasks.experiment.config import shortened
from tasks.experiment.console import print_table
from tasks.experiment.same_data import digest
from tasks.experiment.task import Plan, Task
from tasks.melody import unit
from tasks.melody.evaluation import SHOWN, evaluate_run
from tasks.melody.experiment import MelodyExperiment
from tasks.melody.report import write as write_report
from tasks.melody.vocabulary import Vocabulary


class MelodyTask(Task):
    """Train every arm of a config with every seed, then measure, generate, compare and report."""

    name = "melody"
    unit = staticmethod(unit.run)

    def fast(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Two epochs for every model that is trained by epochs."""
        return shortened(MelodyExperiment, tree, trainer={"max_epochs": 2})

    def plan(self, experiment: MelodyExperiment) -> Plan:
        music = experiment.pieces
        account, name = said_of(music)
        return Plan(
            account="\n".join(account),
            data=name,
            folds=1,
            arms=list(experiment.models),
            seedless=[name for name, model in experiment.models.items() if model.seedless],
            content={f"{part} pieces": digest(*_held(music, part)) for part in PARTS},
        )

    def finish(self, experiment: MelodyExperiment, run: Path, folds: Sequence[int], seeds: Sequence[int]) -> None:
        results = evaluate_run(run)
        assert results.summary is not None
        print("nats (lower is better), mean over the pieces of a split and over seeds")
        print_table(results.summary.to_dict("records"), SHOWN)
        if results.comparisons is not None:
            for sentence in results.comparisons["sentence"]:
                print(sentence)
        if results.generation is not None:
            print_table(results.generation.to_dict("records"))
        print(f"report: {self.report(run)}")

    def report(self, run: Path) -> Path:
        return write_report(run)


def said_of(music: Any) -> tuple[list[str], str]:
    """Account and name of a collection."""
    if isinstance(music, SongBook):
        counts = ", ".join(f"{len(music.part(part))} {part}" for part in PARTS)
        return [*music.account, counts, *_unsaid(music)], f"songs {music.name}"
    counts = ", ".join(f"{len(pieces)} {part}" for part, pieces in music.items())
    return [f"chorales: {counts}"], "chorales"


def _held(music: Any, part: Part) -> Iterator[Any]:
    """Names and arrays of the pieces of one part."""
    if not isinstance(music, SongBook):
        yield from music[part]
        return
    for song in music.part(part):
        yield from (
            song.name,
            str(song.metre),
            str(song.key),
            song.onset,
            song.duration,
            song.pitch,
            song.bars,
            song.phrase,
        )


def _unsaid(book: SongBook) -> list[str]:
    """A line on the songs that hold what no training song does, or a break of bars that is too long."""
    vocabulary = Vocabulary.of(book.part("train"))
    why = Counter(lacking.rsplit(" ", 1)[0] for song in book.songs if (lacking := vocabulary.lacks(song)))
    reasons = ", ".join(f"{what} {n}" for what, n in why.most_common())
    return [f"{why.total()} songs that the vocabulary cannot say are left out ({reasons})"] if why else []


TASK = MelodyTask()
