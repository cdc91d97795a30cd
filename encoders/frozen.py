"""Frozen encoders see every item once: their tokens are kept on disk in half precision, under the encoder's hash."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Int64
from torch import Tensor, nn

from data.array_files import read_npy
from data.errors import DataError
from data.pairs.items import Side
from data.text.reading import parsed_object, read_text
from encoders.encoder import Encoder, padded
from fusion.tokens import Tokens

Progress = Callable[[int, int], None]
"""Told how many items are done, and of how many."""
SAMPLED = 64
WINDOW = 32
"""Batches that are loaded together: among them, items of like length are encoded together."""
SHORT = 16


def encoder_hash(module: nn.Module) -> str:
    """16 hex digits that change with anything that changes the output: classes, settings, weights, vocabulary.

    Two modules of the same hash encode alike, on whatever device and in whatever process.
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        digest.update(f"{name} {type(part).__qualname__} {_settings(part)}".encode())
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{name} {json.dumps(value, sort_keys=True)}".encode())
    return digest.hexdigest()[:SHORT]


def _settings(part: nn.Module) -> str:
    """Plain attributes of a module; those of transformers' modules change with its version and are in the weights."""
    if type(part).__module__.startswith("transformers."):
        return ""
    own = {k: v for k, v in vars(part).items() if not k.startswith("_") and k not in ("training", "frozen")}
    plain = {}
    for key, value in own.items():
        with suppress(TypeError, ValueError):
            plain[key] = json.dumps(value, sort_keys=True)
    return json.dumps(plain, sort_keys=True)


class Features:
    """Tokens of all items of a side, on disk.

    Args:
        folder: as `features_of` wrote it
    """

    def __init__(self, folder: Path):
        try:
            about = parsed_object(read_text(folder / "about.json"), "about.json")
            self.folder, self.width = folder, int(about["width"])
            self.offsets: Int64[np.ndarray, " i"] = read_npy(folder / "offsets.npy").astype(np.int64)
            total = int(self.offsets[-1])
            if self.width < 1 or self.offsets.ndim != 1 or self.offsets[0] != 0 or (np.diff(self.offsets) < 0).any():
                raise ValueError("offsets that do not rise from 0")
            self.values: Float16[np.ndarray, "n w"] = (
                np.memmap(folder / "tokens.f16", np.float16, "r", shape=(total, self.width))
                if total
                else np.empty((0, self.width), np.float16)
            )
        except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError) as problem:
            raise DataError(f"{folder}: damaged features ({problem}); remove the folder, they are made again") from None
        lengths = np.unique(np.diff(self.offsets))
        self._each = int(lengths[0]) if len(lengths) == 1 else None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: Sequence[int]) -> Tokens:
        """Tokens of these items in single precision, padded to the longest of them; places are not kept."""
        if self._each:
            even = np.asarray(self.values).reshape(len(self), self._each, self.width)
            return Tokens.full(torch.from_numpy(even[np.asarray(rows, dtype=np.int64)].astype(np.float32)))
        parts = [self.values[self.offsets[row] : self.offsets[row + 1]].astype(np.float32) for row in rows]
        return padded([torch.from_numpy(part) for part in parts], self.width, torch.device("cpu"))


def features_of(
    encoder: Encoder, side: Side, folder: Path, batch: int = 16, progress: Progress | None = None
) -> Features:
    """Tokens of every item, computed now or found as they were computed before.

    They are found again for the same encoder (by hash) and the same items (by identifiers, and by the content of 64 of
    them). Several processes may ask at once; a folder appears only when it is whole.

    Args:
        encoder: whose tokens; put into evaluation mode while it works
        side: the items
        folder: where folders of features are kept
        batch: items at once; of many images together, half the time of a CPU goes into fresh memory
        progress: told after every batch

    Raises:
        DataError: the folder cannot be written, or a value that half precision cannot hold, NaN among them
    """
    place = Path(folder) / f"{side.name}-{encoder_hash(encoder)}-{items_hash(side)}"
    if (place / "about.json").is_file():
        return Features(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    except OSError as error:
        raise DataError(
            f"{place.parent}: tokens of frozen encoders cannot be kept here ({error.strerror}); give a folder that can "
            "be written, for data sets in FUSION_DATA"
        ) from None
    training = encoder.training
    encoder.eval()
    try:
        lengths = _write(encoder, side, staged / "tokens.f16", batch, progress)
        np.save(staged / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        about = {"modality": side.name, "items": len(side), "width": encoder.width, "encoder": encoder_hash(encoder)}
        (staged / "about.json").write_text(json.dumps(about))
        try:
            os.replace(staged, place)
        except OSError:
            if not (place / "about.json").is_file():
                raise
    finally:
        encoder.train(training)
        shutil.rmtree(staged, ignore_errors=True)
    return Features(place)


def items_hash(side: Side) -> str:
    """16 hex digits of the identifiers of all items and the content of 64 of them, evenly spread."""
    digest = hashlib.sha256("\n".join([side.name, *side.ids]).encode())
    sample = np.unique(np.linspace(0, len(side) - 1, min(SAMPLED, len(side))).round().astype(int)).tolist()
    for row in sample:
        item: Any = side.load([row])[0]
        digest.update(item.encode() if isinstance(item, str) else np.ascontiguousarray(item).tobytes())
    return digest.hexdigest()[:SHORT]


@torch.no_grad()
def _write(encoder: Encoder, side: Side, path: Path, batch: int, progress: Progress | None) -> list[int]:
    lengths: list[int] = []
    window = WINDOW * batch
    with path.open("wb") as out:
        for start in range(0, len(side), window):
            rows = range(start, min(start + window, len(side)))
            for row, values in zip(rows, _encoded(encoder, side.load(rows), batch), strict=True):
                if not np.isfinite(values).all():
                    raise DataError(
                        f"{side.name} {side.ids[row]}: its features hold NaN or values beyond 65,504; leave it out"
                    )
                lengths.append(len(values))
                out.write(values.tobytes())
            if progress:
                progress(rows.stop, len(side))
    return lengths


def _encoded(encoder: Encoder, raw: Any, batch: int) -> list[Float16[np.ndarray, "_ w"]]:
    """Kept tokens of each item, in the order of the items."""
    order = np.arange(len(raw)) if isinstance(raw, np.ndarray) else np.argsort([len(item) for item in raw])
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(order), batch):
        rows = order[start : start + batch].tolist()
        tokens = encoder(raw[rows] if isinstance(raw, np.ndarray) else [raw[row] for row in rows])
        with np.errstate(over="ignore"):
            for row, x, keep in zip(rows, tokens.x, tokens.keep, strict=True):
                found[row] = x[keep].float().cpu().numpy().astype(np.float16)
    return [found[row] for row in range(len(raw))]
