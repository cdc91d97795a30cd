"""Small Tunes Transformer: skeleton notes in, a whole melody out, tied together phrase by phrase (arXiv 2410.08626).

Only the aim and the names of the parts are known of the paper; sizes, tokens, skeleton rule and training are ours.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data.errors import DataError
from data.music.book import PARTS, SongBook
from data.music.melody import Melody
from data.music.skeleton import skeleton
from tasks.experiment.folder import RunError, write_whole
from tasks.experiment.saved import Damaged, read_saved
from tasks.experiment.trainer import TrainerOptions
from tasks.melody.batches import LengthBatches
from tasks.melody.compose import compose
from tasks.melody.composed import Composed, Composer, OnPhrase
from tasks.melody.fit import FIT, FitOptions, fit_network
from tasks.melody.frame import Frame, frame_of, phrased, without_skeleton
from tasks.melody.model import Measurement
from tasks.melody.models.notes_network import NotesNetwork, Sizes
from tasks.melody.rules import Rules, Sampling
from tasks.melody.song_batch import Frames, Notes, frame_batch, note_batch
from tasks.melody.vocabulary import Vocabulary

WEIGHTS, VOCABULARY = "weights.pt", "vocabulary.json"
SIZES, TRAINER = Sizes(), TrainerOptions(max_epochs=12)
TOGETHER = 16
"""Songs that are measured at once."""
Skeletons = Literal["true", "shuffled", "none"]


class SmallTunes(Composer):
    """The Small Tunes Transformer.

    Args:
        skeleton: `true` skeletons; `shuffled` = those of another song, in training and in measurement, which must not
            help; `none` = a model of melodies alone
        rho: share of a phrase's notes that are its skeleton
        dropped: share of skeleton notes left out in training, so that sparser skeletons are met as well
        sizes: of the network
        fit: optimiser and stopping
        trainer: epochs, device, precision
    """

    parts: ClassVar[tuple[str, ...]] = ("decorative pitch", "note", "pitch", "duration", "place", "skip")

    def __init__(
        self,
        skeleton: Skeletons = "true",
        rho: float = 0.3,
        dropped: float = 0.1,
        sizes: Sizes = SIZES,
        fit: FitOptions = FIT,
        trainer: TrainerOptions = TRAINER,
    ):
        if not 0 < rho <= 1 or not 0 <= dropped < 1:
            raise ValueError(f"SmallTunes: rho={rho}, dropped={dropped}; expected 0 < rho <= 1 and 0 <= dropped < 1")
        self.skeleton, self.rho, self.dropped = skeleton, rho, dropped
        self.sizes, self.fitting, self.trainer = sizes, fit, trainer

    def fit(self, music: Any, folder: Path, seed: int) -> dict[str, Any]:
        book = songs_of(music, type(self).__name__)
        vocabulary = Vocabulary.of(book.part("train"))
        torch.manual_seed(seed)
        self.network = NotesNetwork(vocabulary, self.sizes)
        parts = {part: self.sayable(book.part(part)) for part in PARTS[:2]}
        for part, (said, unsaid) in parts.items():
            if not said:
                why = f" ({'; '.join(unsaid[:2])})" if unsaid else ""
                raise DataError(
                    f"songs {book.name}: {len(unsaid)} {part} songs, none can be said{why}; give more songs"
                )
        sayable, left_out = parts["train"]
        valid = self.batches(parts["valid"][0])
        dataset: Any = list(zip(sayable, self.frames(sayable), strict=True))
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=LengthBatches([len(song) for song in sayable], self.fitting.batch, seed),  # type: ignore[arg-type]
            collate_fn=lambda rows: self.tensors([song for song, _ in rows], [frame for _, frame in rows]),
        )
        fitted = fit_network(
            self.network, self._loss, lambda network: _mean_nats(network, valid), loader, folder, seed,
            self.fitting, self.trainer,
        )  # fmt: skip
        self.network.cpu()
        write_whole(folder / "epochs.csv", fitted.epochs.to_csv(index=False))
        write_whole(folder / VOCABULARY, json.dumps({"hash": vocabulary.hash, **asdict(vocabulary)}))
        content = io.BytesIO()
        torch.save({"vocabulary": vocabulary.hash, "network": self.network.state_dict()}, content)
        write_whole(folder / WEIGHTS, content.getvalue())
        weights = sum(p.numel() for p in self.network.parameters())
        return {
            "best_epoch": fitted.best_epoch,
            "weights": weights,
            "vocabulary": vocabulary.hash,
            "left_out": len(left_out),
        }

    def load(self, folder: Path) -> None:
        if not (folder / WEIGHTS).is_file() or not (folder / VOCABULARY).is_file():
            raise RunError(f"{folder}: no {WEIGHTS}; this unit is not finished, train it with --resume")
        vocabulary = Vocabulary.parse(json.loads((folder / VOCABULARY).read_text()))
        try:
            kept = read_saved(folder / WEIGHTS)
        except Damaged as error:
            raise RunError(f"{folder / WEIGHTS}: cannot be loaded ({error}); train the run again") from None
        if kept["vocabulary"] != vocabulary.hash:
            raise RunError(
                f"{folder}: the weights are for vocabulary {kept['vocabulary']}, {VOCABULARY} is {vocabulary.hash}; "
                "put back the file of this unit, or train it again"
            )
        network = NotesNetwork(vocabulary, self.sizes)
        try:
            network.load_state_dict(kept["network"])
        except RuntimeError as error:
            said = str(error).splitlines()[1 if "\n" in str(error) else 0].strip()
            raise RunError(f"{folder}: weights do not fit this version ({said}); train the run again") from None
        self.network = network.eval()

    def measure(self, music: Any, split: str) -> list[Measurement]:
        songs, _ = self.sayable(songs_of(music, type(self).__name__).part(split))  # type: ignore[arg-type]
        rows = []
        for chosen, (frames, notes) in zip(_chunks(songs), self.batches(songs), strict=True):
            with torch.no_grad():
                nats = {name: values.double().numpy() for name, values in self.network(frames, notes).items()}
            for at, song in enumerate(chosen):
                decorative = ~skeleton(phrased(song), self.rho)
                own = {name: values[at, : len(song)] for name, values in nats.items()}
                parts = {"note": sum(own.values()), **own, "decorative pitch": own["pitch"][decorative]}
                sixteenths = (song.end - int(song.onset[0])) / 6
                for part in self.parts:
                    found = np.asarray(parts[part])
                    rows.append(Measurement(split, song.name, part, len(found), sixteenths, float(found.sum())))
        return rows

    def sayable(self, songs: Sequence[Melody]) -> tuple[list[Melody], list[str]]:
        """The songs that the vocabulary can say, and a line on each of the others."""
        lacking = {song.name: self.network.vocabulary.lacks(song) for song in songs}
        kept = [song for song in songs if not lacking[song.name]]
        return kept, [f"{name}: {what} is not in the vocabulary" for name, what in lacking.items() if what]

    @property
    def composes(self) -> bool:
        return self.skeleton != "shuffled"

    @property
    def keeps_skeletons(self) -> bool:
        return self.skeleton == "true"

    def frames(self, songs: Sequence[Melody]) -> list[Frame]:
        """Songs as frames; a model without skeletons gets frames without."""
        frames = [frame_of(song, skeleton(song, self.rho)) for song in map(phrased, songs)]
        return [without_skeleton(frame) for frame in frames] if self.skeleton == "none" else frames

    def compose(
        self, frames: Sequence[Frame], sampling: Sampling, rules: Rules, on_phrase: OnPhrase | None = None
    ) -> list[Composed]:
        return compose(self.network, frames, sampling, rules, on_phrase)

    def tensors(self, songs: Sequence[Melody], frames: Sequence[Frame]) -> tuple[Frames, Notes]:
        """A batch; shuffled skeletons are those of the next song in it."""
        batch = frame_batch(frames, self.network.vocabulary)
        if self.skeleton == "shuffled":
            order = torch.arange(len(songs)).roll(1)
            batch = (
                batch.with_skeletons_of(batch[order]) if len(songs) > 1 else batch.only(torch.zeros_like(batch.keep))
            )
        return batch, note_batch(songs)

    def batches(self, songs: Sequence[Melody]) -> list[tuple[Frames, Notes]]:
        """Batches of songs in order."""
        return [self.tensors(chosen, self.frames(chosen)) for chosen in _chunks(songs)]

    def _loss(self, network: Callable[..., dict[str, Tensor]], batch: tuple[Frames, Notes]) -> Tensor:
        frames, notes = batch
        if self.dropped:
            frames = frames.only(torch.rand(frames.onset.shape, device=frames.onset.device) >= self.dropped)
        nats = network(frames, notes)
        return sum((values.sum() for values in nats.values()), torch.zeros(())) / notes.keep.sum()


def songs_of(music: Any, model: str) -> SongBook:
    """The songs of a collection.

    Raises:
        DataError: it is not one of songs
    """
    if not isinstance(music, SongBook):
        raise DataError(
            f"{model}: learns from songs, and this music has none; take EssenSongs, Pop909Songs or FolderSongs"
        )
    return music


def _mean_nats(network: nn.Module, batches: Sequence[tuple[Frames, Notes]]) -> float:
    """Nats per note over songs."""
    device = next(network.parameters()).device
    said = (network(frames.to(device), notes.to(device)) for frames, notes in batches)
    total = sum(float(values.sum()) for nats in said for values in nats.values())
    return total / sum(int(notes.keep.sum()) for _, notes in batches)


def _chunks(songs: Sequence[Melody]) -> Iterator[Sequence[Melody]]:
    for start in range(0, len(songs), TOGETHER):
        yield songs[start : start + TOGETHER]
