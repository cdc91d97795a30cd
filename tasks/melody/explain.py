"""`melody explain`: how likely a model finds each note of a melody, and what it read of the skeleton for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from data.errors import DataError
from data.music.key import TONICS
from data.music.melody import Melody
from data.music.synthesis import synthesise, wav_bytes
from fusion.observe import Ask, observe
from tasks.experiment.folder import RunError
from tasks.experiment.report import Figure, Report, Section, Table
from tasks.experiment.report.drawing import sheet
from tasks.experiment.report.numbers import count, decimal
from tasks.experiment.report.palette import BLUE, HEAT, VERMILLION
from tasks.melody.frame import Frame
from tasks.melody.generate import frame_skeleton
from tasks.melody.inputs import given
from tasks.melody.models.small_tunes import SmallTunes
from tasks.melody.piano_roll import roll_figure
from tasks.melody.shown import RATE
from tasks.melody.trained import composer


def explain(
    run: Path, path: Path, *, key: str | None = None, metre: str | None = None, rho: float = 0.3,
    track: str | None = None, arm: str | None = None, unit_seed: int | None = None,
) -> Path:  # fmt: skip
    """Write a page on one melody into the run folder.

    Args:
        run: the run folder
        path: MIDI, ABC, **kern or JSON
        key, metre, rho, track: as in `tasks.melody.inputs.given`
        arm: which model; None = the one under test
        unit_seed: which training; None = the first that is finished

    Raises:
        DataError: the file's own fault, or the vocabulary lacks something of the melody
        RunError: this model reads no skeletons
    """
    model, unit = composer(run, arm, unit_seed)
    if not isinstance(model, SmallTunes):
        raise RunError(f"{unit.parent}: explanations are of the Small Tunes Transformer; name another with --arm")
    song, frame = given(path, key, metre, rho, track)
    if lacking := model.network.vocabulary.lacks(song):
        raise DataError(f"{path}: {lacking} is not in vocabulary {model.network.vocabulary.hash}")
    nats, phrases = _looked(model, song, frame)
    return _page(run, path, song, frame, nats, phrases).write(run / "explain" / f"{path.stem}.html")


def _looked(
    model: SmallTunes, song: Melody, frame: Frame
) -> tuple[dict[str, Float[np.ndarray, " n"]], Float[np.ndarray, "n p"]]:
    """Nats of each field of each note, and how much each note read each phrase's summary in the last layer."""
    frames, notes = model.tensors([song], [frame])
    site = f"melody <- skeleton/{len(model.network.across) - 1}/macro"
    with torch.no_grad(), observe(model.network, {site: Ask(rows=list(range(len(song))))}) as seen:
        nats = {name: values[0].double().numpy() for name, values in model.network(frames, notes).items()}
    weights = seen[site][0]["rows"][0].mean(dim=0)[:, : int(frame.phrase[-1]) + 1]
    return nats, weights.double().numpy()


def _page(
    run: Path, path: Path, song: Melody, frame: Frame, nats: dict[str, Float[np.ndarray, " n"]],
    phrases: Float[np.ndarray, "n p"],
) -> Report:  # fmt: skip
    marks = frame_skeleton(song, frame)
    roll = roll_figure("roll", song.name, song, marks)
    decorative = nats["pitch"][~marks]
    lead = (
        f"{count(len(song), 'note')}, {int(marks.sum())} of them given as skeleton; the others' pitches cost "
        f"{decimal(float(decorative.mean()) if len(decorative) else None)} nats each."
    )
    figures = [
        replace(roll, sound=wav_bytes(synthesise(song, rate=RATE), RATE)),
        _surprise(nats["pitch"], marks),
        _read(phrases, song),
    ]
    return Report(
        f"{path.name} under {run.name}",
        lead,
        [Section("Melody", figures), Section("Notes", [_table(song, marks, nats)])],
    )


def _surprise(nats: Float[np.ndarray, " n"], marks: Bool[np.ndarray, " n"]) -> Figure:
    with sheet("surprise", 210.0) as drawn:
        axes = drawn.canvas.subplots()
        axes.bar(np.arange(1, len(nats) + 1), nats, color=np.where(marks, VERMILLION, BLUE), width=0.9)
        axes.set_xlabel("Note")
        axes.set_ylabel("-log p of its pitch (nats)")
        axes.grid(axis="y")
    highest = int(nats.argmax()) + 1
    return Figure(
        "surprise",
        drawn.svg,
        "Which notes the model did not expect",
        "Skeleton notes are red: they are given, so their pitch costs next to nothing.",
        count(len(nats), "note"),
        f"Surprise of each note's pitch; the highest is note {highest} with {decimal(float(nats.max()))} nats.",
    )


def _read(phrases: Float[np.ndarray, "n p"], song: Melody) -> Figure:
    with sheet("read", 210.0) as drawn:
        axes = drawn.canvas.subplots()
        image = axes.imshow(phrases.T, aspect="auto", cmap=HEAT, vmin=0, interpolation="nearest", origin="lower")
        axes.set_xlabel("Note")
        axes.set_ylabel("Phrase of the skeleton")
        axes.set_yticks(range(phrases.shape[1]), [str(at + 1) for at in range(phrases.shape[1])])
        drawn.canvas.colorbar(image, label="weight, mean over heads")
    most = int(phrases.mean(axis=0).argmax()) + 1
    return Figure(
        "read",
        drawn.svg,
        "Which phrases each note read from afar",
        "Weights of the macro attention of the last layer: one summary per phrase.",
        count(len(song), "note"),
        f"Macro attention of {len(song)} notes over {phrases.shape[1]} phrases; phrase {most} is read most.",
    )


def _table(song: Melody, marks: Bool[np.ndarray, " n"], nats: dict[str, Float[np.ndarray, " n"]]) -> Table:
    rows = [
        [
            *(str(at + 1), f"{song.bar_of[at] + 1}:{song.position[at]}", _named(int(song.pitch[at]))),
            *(str(song.duration[at]), "yes" if marks[at] else ""),
            *(decimal(float(nats[field][at])) for field in ("place", "pitch", "duration")),
        ]
        for at in range(len(song))
    ]
    header = ["note", "bar:tick", "pitch", "ticks", "skeleton", "place, nats", "pitch, nats", "duration, nats"]
    return Table(header, rows, "Every note with -log p of its fields; 24 ticks are a quarter.")


def _named(pitch: int) -> str:
    return f"{TONICS[pitch % 12]}{pitch // 12 - 1}"
