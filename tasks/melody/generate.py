"""`melody generate`: a skeleton file in, melodies as MIDI with a JSON account beside each out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError
from data.music.melody import Melody
from data.music.midi_out import write_midi
from data.music.song_files import as_json
from data.music.synthesis import write_wav
from tasks.experiment.folder import RunFolder, fingerprint, write_whole
from tasks.melody.composed import Composed
from tasks.melody.frame import Frame, infilling
from tasks.melody.inputs import given
from tasks.melody.judged import binding
from tasks.melody.piano_roll import write_roll
from tasks.melody.promises import broken
from tasks.melody.rules import Rules, Sampling, Scale, scale_of
from tasks.melody.trained import composer


@dataclass(frozen=True)
class Request:
    """What is asked for; see the options of `melody generate`."""

    run: Path
    skeleton: Path
    output: Path
    key: str | None = None
    metre: str | None = None
    seed: int = 1
    top_p: float = 0.9
    temperature: float = 1.0
    count: int = 1
    infill: str | None = None
    low: int | None = None
    high: int | None = None
    scale: Scale = "key"
    rho: float = 0.3
    track: str | None = None
    wav: bool = False
    roll: bool = False
    arm: str | None = None
    unit_seed: int | None = None

    def place(self, number: int) -> Path:
        """Where a melody goes, numbered from 0."""
        if self.count == 1:
            return self.output
        return self.output.with_name(f"{self.output.stem}-{number + 1}{self.output.suffix}")


def generate_files(
    request: Request, stream: bool = False, tell: Callable[[str], None] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Generate, and write what was asked for.

    Args:
        request: what is asked for
        stream: write each file again as soon as one more phrase is there
        tell: called with a line per phrase while streaming

    Returns:
        a row per melody, and a row per rule: how often it bound a choice

    Raises:
        DataError: the skeleton cannot be read or kept
        RunError: the run cannot generate
    """
    if request.output.suffix.lower() not in (".mid", ".midi"):
        raise DataError(f"-o {request.output}: melodies are written as MIDI; give a name that ends in .mid")
    model, unit = composer(request.run, request.arm, request.unit_seed)
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

    composed = model.compose([frame] * request.count, sampling, rules, on_phrase if stream else None)
    said = {
        "run": str(request.run),
        "config": fingerprint(RunFolder.open(request.run).config),
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
    content = {**said, "number": number + 1, **row, "bound": account, "melody": as_json(one.melody)}
    content["melody"]["skeleton"] = skeleton.astype(int).tolist()
    write_whole(path.with_suffix(".json"), json.dumps(content, indent=1))
    if request.wav:
        write_wav(path.with_suffix(".wav"), one.melody)
    if request.roll:
        write_roll(path.with_suffix(".png"), one.melody, skeleton)
    return {**row, "broken_promises": len(row["broken_promises"])}
