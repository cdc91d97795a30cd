"""`melody generate` of a run of chorales: new four-voice pieces as MIDI with a JSON account beside each."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.errors import DataError
from data.music.chorales import Chorale, voices_of
from data.music.midi_out import write_voices
from data.music.synthesis import synthesise_voices, wav_bytes
from tasks.experiment.folder import write_whole
from tasks.melody.chorale_tokens import QUARTER, SYMBOLS, chorale_of
from tasks.melody.models.chorale_transformer import ChoraleTransformer
from tasks.melody.request import Request
from tasks.melody.rules import Sampling
from tasks.melody.sampling import Draws, choose

BAR = 4 * QUARTER
"""16ths of a bar of 4/4; the chorales do not say where theirs begin."""
BARS = 8
TEMPO = 80.0


def generate_chorales(
    request: Request, model: ChoraleTransformer, unit: Path, said: dict[str, Any]
) -> list[dict[str, Any]]:
    """Generate, and write what was asked for.

    Args:
        request: without a skeleton and what belongs to one
        model: trained
        unit: its folder
        said: what the account says of the run

    Returns:
        a row per piece

    Raises:
        DataError: an option that only melodies have, or a place that cannot be written
    """
    if options := request.only_for_melodies:
        raise DataError(
            f"{options[0]}: {request.run} makes whole chorales, from nothing; leave {', '.join(options)} out, "
            "or name a run of songs"
        )
    sampling = Sampling(request.seed, request.temperature, request.top_p)
    draws = Draws(sampling.seed, request.count)
    legal = torch.ones(request.count, SYMBOLS, dtype=torch.bool)

    def draw(logits: Float[Tensor, "b v"]) -> Int[Tensor, " b"]:
        return choose(logits, legal, draws.next(), sampling)

    bars = BARS if request.bars is None else request.bars
    pieces = model.network.sample(bars * BAR, draw, request.count)
    said = {**said, "unit": unit.name, "sampling": asdict(sampling)}
    return [_written(request, number, chorale_of(piece), said) for number, piece in enumerate(pieces)]


def described(chorale: Chorale) -> dict[str, Any]:
    """What a chorale that sounds holds; `crossed` is the share of 16ths in which a voice sounds above a higher one."""
    sounding = chorale >= 0
    both = sounding[:, :-1] & sounding[:, 1:]
    crossed = (both & (chorale[:, 1:] > chorale[:, :-1])).any(axis=1)
    voices = voices_of(chorale)
    return {
        "bars": len(chorale) // BAR,
        "notes": sum(len(voice) for voice in voices),
        "lowest": int(chorale[sounding].min()),
        "highest": int(chorale.max()),
        "silent": round(float(1 - sounding.mean()), 4),
        "crossed": round(float(crossed.mean()), 4),
    }


def _written(request: Request, number: int, chorale: Chorale, said: dict[str, Any]) -> dict[str, Any]:
    path, voices = request.place(number), voices_of(chorale)
    if not voices:
        raise DataError(f"{path}: the model drew silence alone; take another --seed or a higher --temperature")
    write_voices(path, voices, TEMPO)
    row = {"file": str(path), **described(chorale)}
    content = {**said, "number": number + 1, **row, "chorale": np.asarray(chorale).tolist()}
    write_whole(path.with_suffix(".json"), json.dumps(content, indent=1))
    if request.wav:
        write_whole(path.with_suffix(".wav"), wav_bytes(synthesise_voices(voices, TEMPO)))
    return row
