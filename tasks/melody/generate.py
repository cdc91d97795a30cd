"""`melody generate`: a skeleton file in, melodies as MIDI with a JSON account beside each out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError
from data.music.melody import TICKS, Melody
from data.music.midi_out import write_midi
from data.music.song_files import as_json
from data.music.synthesis import write_wav
from tasks.experiment.folder import RunFolder, fingerprint, write_whole
from tasks.melody.chorale_generate import generate_chorales
from tasks.melody.composed import Composed, Composer
from tasks.melody.frame import Frame, infilling
from tasks.melody.inputs import given
from tasks.melody.judged import binding
from tasks.melody.models.chorale_transformer import ChoraleTransformer
from tasks.melody.piano_roll import write_roll
from tasks.melody.promises import broken
from tasks.melody.request import Request
from tasks.melody.rules import Rules, Sampling, scale_of
from tasks.melody.trained import composing, trained


def generate_files(
    request: Request, tell: Callable[[str], None] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Generate, and write what was asked for.

    Args:
        request: what is asked for
        tell: called with a line per phrase while streaming

    Returns:
        a row per melody, and a row per rule: how often it bound a choice

    Raises:
        DataError: the skeleton cannot be read or kept
        RunError: the run cannot generate
    """
    if request.output.suffix.lower() not in (".mid", ".midi"):
        raise DataError(f"-o {request.output}: music is written as MIDI; give a name that ends in .mid")
    model, unit = trained(request.run, request.arm, request.unit_seed)
    said = {"run": str(request.run), "config": fingerprint(RunFolder.open(request.run).config)}
    if isinstance(model, ChoraleTransformer):
        return generate_chorales(request, model, unit, said), []
    return _melodies(request, composing(model, unit), unit, said, tell)


def _melodies(
    request: Request, model: Composer, unit: Path, said: dict[str, Any], tell: Callable[[str], None] | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if request.skeleton is None:
        raise DataError(f"{request.run}: its melodies are made from a skeleton; give one with --skeleton FILE")
    if request.bars is not None:
        raise DataError(
            f"--bars {request.bars}: only chorales are of any length; a melody has the bars of its skeleton"
        )
    song, frame = given(request.skeleton, request.key, request.metre, request.rho, request.track)
    if request.infill is not None:
        frame = infilling(song, frame, *bars_of(request.infill))
    rules = Rules(request.low, request.high, request.scale)
    sampling = Sampling(request.seed, request.temperature, request.top_p)

    def on_phrase(row: int, phrase: int, melody: Melody) -> None:
        write_midi(request.place(row), melody, frame_skeleton(melody, frame))
        if tell is not None:
            of = int(frame.phrase[-1]) + 1
            tell(f"{request.place(row)}: phrase {phrase + 1} of {of}, {len(melody)} notes so far")

    composed = model.compose([frame] * request.count, sampling, rules, on_phrase if request.stream else None)
    said = {
        **said,
        "unit": unit.name,
        "skeleton": str(request.skeleton),
        "sampling": asdict(sampling),
        "rules": asdict(rules),
    }
    rows = [_written(request, number, one, frame, rules, said) for number, one in enumerate(composed)]
    return rows, binding(composed).to_dict("records")


def bars_of(text: str) -> tuple[int, int]:
    """`5-8` as 4, 7.

    Raises:
        DataError: it is no pair of bars
    """
    first, _, last = text.partition("-")
    if not first.isdigit() or not last.isdigit() or not 0 < int(first) <= int(last):
        raise DataError(f"--infill {text}: expected two bars, from 1, such as 5-8")
    return int(first) - 1, int(last) - 1


def frame_skeleton(melody: Melody, frame: Frame) -> np.ndarray:
    """Which notes of a melody are skeleton notes of its frame."""
    due = set(zip(frame.onset.tolist(), frame.pitch.tolist(), strict=True))
    return np.array([note in due for note in zip(melody.onset.tolist(), melody.pitch.tolist(), strict=True)])


def described(one: Composed, frame: Frame, rules: Rules) -> dict[str, Any]:
    """What a melody kept and holds."""
    melody, kept = one.melody, frame_skeleton(one.melody, frame)
    return {
        "notes": len(melody),
        "bars": len(melody.bars),
        "phrases": 1 if melody.phrase is None else int(melody.phrase[-1]) + 1,
        "skeleton_notes": len(frame.onset),
        "skeleton_kept": int(kept.sum()),
        "in_key": round(float(np.isin(melody.pitch % 12, scale_of(frame.key)).mean()), 4),
        "lowest": int(melody.pitch.min()),
        "highest": int(melody.pitch.max()),
        "broken_promises": broken(melody, frame, rules),
    }


def _written(
    request: Request, number: int, one: Composed, frame: Frame, rules: Rules, said: dict[str, Any]
) -> dict[str, Any]:
    path, skeleton = request.place(number), frame_skeleton(one.melody, frame)
    write_midi(path, one.melody, skeleton)
    row = {"file": str(path), **described(one, frame, rules)}
    account = {name: asdict(bound) for name, bound in one.bound.items()}
    song = as_json(one.melody) | {"skeleton": skeleton.astype(int).tolist()}
    content = {**said, "number": number + 1, **row, "bound": account, "ticks_per_quarter": TICKS, "songs": [song]}
    write_whole(path.with_suffix(".json"), json.dumps(content, indent=1))
    if request.wav:
        write_wav(path.with_suffix(".wav"), one.melody)
    if request.roll:
        write_roll(path.with_suffix(".png"), one.melody, skeleton)
    return {**row, "broken_promises": len(row["broken_promises"])}
