"""`melody segment` and `melody skeleton`: phrases and structural notes of files and folders."""

from __future__ import annotations

import json as json_text
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.errors import DataError
from tasks.experiment.arguments import Json
from tasks.experiment.console import BAD_INPUT, DONE, SOME_FAILED, print_json, print_table, say

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from data.music.melody import Melody
    from tasks.melody.segment import Read


class Method(StrEnum):
    """How phrases are found."""

    programme = "programme"
    learned = "learned"
    lbdm = "lbdm"
    rests = "rests"


class Culture(StrEnum):
    """Whose songs the weights were tuned or trained on."""

    han = "han"
    german = "german"


Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="MIDI, ABC, **kern or JSON, or folders of them")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="folder for a MIDI and a JSON file of each melody")]
Track = Annotated[str | None, typer.Option(help="of a MIDI file with several: name or number")]
KeyText = Annotated[str | None, typer.Option("--key", help="tonic and mode, D:zhi or A:min; default: the file's")]
Roll = Annotated[bool, typer.Option("--roll", help="with -o: a piano roll (PNG) of each melody")]
Chosen = Annotated[Method, typer.Option(help="programme needs no data; learned is trained once on Essen songs")]
Of = Annotated[Culture, typer.Option(help="whose phrases")]
Model = Annotated[Path | None, typer.Option(help="of learned: a segmenter that was trained before (.npz)")]


def segment(
    files: Files,
    method: Chosen = Method.programme,
    culture: Of = Culture.han,
    model: Model = None,
    output: Output = None,
    track: Track = None,
    roll: Roll = False,
    json: Json = False,
) -> int:
    """Where phrases end: one row per melody; with -o files whose phrases are marked."""
    from tasks.melody.segment import segmented, segmenter_of

    find = segmenter_of(method.value, culture.value, model)

    def work(read: Read) -> tuple[Melody, None, dict[str, Any]]:
        melody, row = segmented(read, find)
        return melody, None, row

    return _each(files, track, output, roll, json, work)


def skeleton(
    files: Files,
    rho: Annotated[float, typer.Option(help="share of each phrase's notes to keep, over 0 to 1")] = 0.3,
    key: Annotated[
        str | None, typer.Option("--key", help="tonic and mode, D:zhi or A:min; default: the file's")
    ] = None,
    method: Chosen = Method.programme,
    culture: Of = Culture.han,
    output: Output = None,
    track: Track = None,
    roll: Roll = False,
    json: Json = False,
) -> int:
    """The structural notes: one row per melody; with -o a second MIDI track that holds them."""
    from dataclasses import replace

    from data.music.key import Key
    from data.music.skeleton import skeleton as extract
    from tasks.melody.segment import segmented, segmenter_of

    if not 0 < rho <= 1:
        raise ValueError(f"--rho {rho:g}: a share of the notes over 0, at most 1")
    named = None if key is None else Key.parse(key)
    find = segmenter_of(method.value, culture.value)

    def work(read: Read) -> tuple[Melody, np.ndarray, dict[str, Any]]:
        melody = read.melody
        assert melody is not None
        if melody.phrase is None:
            melody = segmented(read, find)[0]
        melody = melody if named is None else replace(melody, key=named)
        kept = extract(melody, rho)
        row = {
            "file": str(read.path),
            "melody": melody.name,
            "key": None if melody.key is None else str(melody.key),
            "notes": len(melody),
            "skeleton": int(kept.sum()),
            "kept": " ".join(str(at + 1) for at in kept.nonzero()[0].tolist()),
        }
        return melody, kept, row

    return _each(files, track, output, roll, json, work)


def _each(
    files: list[Path],
    track: str | None,
    output: Path | None,
    roll: bool,
    json: bool,
    work: Callable[[Read], tuple[Melody, np.ndarray | None, dict[str, Any]]],
) -> int:
    """Work on every melody, write what was asked for, and print the rows; a refused file is one line on stderr."""
    from tasks.melody.segment import read_all

    if roll and output is None:
        raise ValueError("--roll: name a folder for the pictures with -o")
    if output is not None:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ValueError(f"{output}: {problem.strerror or problem}; name another folder with -o") from None
    rows: list[dict[str, Any]] = []
    taken: set[str] = set()
    refused = 0
    for read in read_all(files, track):
        try:
            if read.melody is None:
                raise DataError(read.fault)
            melody, kept, row = work(read)
            if output is not None:
                row["written"] = str(_write(output, melody, kept, roll, taken))
            rows.append(row)
        except DataError as fault:
            say(str(fault), "melody")
            refused += 1
    if json:
        print_json({"melodies": rows, "refused": refused})
    else:
        print_table(rows)
    return (SOME_FAILED if rows else BAD_INPUT) if refused else DONE


def _write(output: Path, melody: Melody, kept: np.ndarray | None, roll: bool, taken: set[str]) -> Path:
    from data.music.midi_out import write_midi
    from tasks.melody.piano_roll import write_roll
    from tasks.melody.segment import marked_json

    stem = "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in melody.name).strip(".") or "melody"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    midi = output / f"{name}.mid"
    write_midi(midi, melody, kept)
    content = {"ticks_per_quarter": 24, "songs": [marked_json(melody, kept)]}
    midi.with_suffix(".json").write_text(json_text.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    if roll:
        write_roll(midi.with_suffix(".png"), melody, kept)
    return midi


def add(app: typer.Typer) -> None:
    """Put both commands on an application."""
    app.command()(segment)
    app.command()(skeleton)
