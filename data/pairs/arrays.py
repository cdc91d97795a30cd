"""Items that are arrays: vectors from anywhere, genes of a table, patch features of slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from data.array_files import read_npy, read_npz, texts_of
from data.errors import DataError
from data.pairs.items import RawBatch, Side
from data.pairs.sources import Found, ItemSource
from data.pairs.tables import read_rows
from data.slides.feature_files import FileBags, slide_name
from data.slides.feature_folder import feature_files
from data.sources import resolve
from data.text.reading import read_text


class Vectors(ItemSource):
    """Rows of an array: embeddings, brain samples, token vectors.

    Args:
        file: .npy, or .npz with `vectors` and perhaps `ids`; `[n, width]`, or `[n, tokens, width]`
        ids: text file with one key a line; None = the `ids` of the .npz, else the numbers of the rows, from 0
        modality: "vectors", or "fmri" for samples of voxels
    """

    def __init__(self, file: str, ids: str | None = None, modality: Literal["vectors", "fmri"] = "vectors"):
        self.file, self.ids, self.modality = file, ids, modality  # type: ignore[misc]

    def read(self, keys: Sequence[str] | None = None) -> Found:
        path = resolve(self.file)
        values, named = _array(path)
        if self.ids is not None:
            named = read_text(resolve(self.ids)).splitlines()
        count = len(values) if values.ndim else 0
        named = [str(k) for k in range(count)] if named is None else named
        if values.ndim not in (2, 3) or values.dtype.kind not in "fiu" or len(named) != count:
            raise DataError(
                f"{path}: {values.dtype} of shape {values.shape} with {len(named)} ids; expected numbers [n, width] or "
                "[n, tokens, width] and an id for each of n"
            )
        rows: dict[str, int] = {}
        notes = []
        for row, key in enumerate(named):
            if not np.isfinite(values[row]).all():
                notes.append(f"{path}: vector {key} holds NaN or infinity and is left out")
            elif key in rows:
                notes.append(f"{path}: id {key} stands twice, the first is kept")
            else:
                rows[key] = row
        return _selected(self.modality, rows, values, notes, keys, path)


class Genes(ItemSource):
    """Rows of a table of genes: the first column is the key, every other one a gene; gaps stay NaN.

    Args:
        table: .csv, .tsv or .jsonl
    """

    modality = "genes"

    def __init__(self, table: str):
        self.table = table

    def read(self, keys: Sequence[str] | None = None) -> Found:
        path = resolve(self.table)
        table = read_rows(path)
        try:
            values = table.iloc[:, 1:].apply(pd.to_numeric).to_numpy(np.float32)
        except ValueError as problem:
            raise DataError(f"{path}: {problem}; every column but the first must hold numbers") from None
        rows: dict[str, int] = {}
        notes = []
        for row, key in enumerate(map(str, table.iloc[:, 0])):
            if not np.isfinite(values[row]).any():
                notes.append(f"{path}: {key} has no value and is left out")
            elif key in rows:
                notes.append(f"{path}: id {key} stands twice, the first is kept")
            else:
                rows[key] = row
        return _selected(self.modality, rows, values, notes, keys, path)


class SlideFeatures(ItemSource):
    """Patch features of slides, one file per slide.

    Args:
        folder: a CLAM or TRIDENT output, any folder of .h5 and .pt files, or one of these files
    """

    modality = "slide"

    def __init__(self, folder: str):
        self.folder = folder

    def read(self, keys: Sequence[str] | None = None) -> Found:
        folder = resolve(self.folder)
        files = {slide_name(folder.name): folder} if folder.is_file() else feature_files(folder)
        wanted = list(files) if keys is None else list(dict.fromkeys(map(slide_name, keys)))
        given = (
            dict(zip(map(slide_name, keys), keys, strict=True)) if keys is not None else {name: name for name in files}
        )
        notes = [f"{folder}: no features of slide {name}" for name in wanted if name not in files]
        bags = FileBags({name: [files[name]] for name in wanted if name in files})
        notes += [f"{folder}: slide {name} has no patch and is left out" for name in bags.empty]
        names = bags.case_ids
        if not names:
            raise DataError(f"{folder}: no slide can be used here{f': {notes[0]}' if notes else ''}")

        def load(rows: Sequence[int]) -> RawBatch:
            return [bags.read(names[row]).features.float().numpy() for row in rows]

        return Found(Side("slide", [given[name] for name in names], load, [files[name] for name in names]), notes)


def _array(path: Path) -> tuple[np.ndarray, list[str] | None]:
    if path.suffix == ".npy":
        return read_npy(path, mapped="r"), None
    arrays = read_npz(path)
    if "vectors" not in arrays:
        raise DataError(f"{path}: no array `vectors`; there are {', '.join(arrays) or 'none'}")
    return arrays["vectors"], texts_of(arrays["ids"], path) if "ids" in arrays else None


def _selected(
    modality: str, rows: dict[str, int], values: np.ndarray, notes: list[str], keys: Sequence[str] | None, path: Path
) -> Found:
    wanted = list(rows) if keys is None else list(dict.fromkeys(keys))
    notes = [*notes, *(f"{path}: no {modality} {key}" for key in wanted if key not in rows)]
    ids = [key for key in wanted if key in rows]
    if not ids:
        raise DataError(f"{path}: no {modality} can be used here{f': {notes[0]}' if notes else ''}")
    at = np.array([rows[key] for key in ids])
    side = Side(modality, ids, lambda asked: np.asarray(values[at[list(asked)]], np.float32), [path] * len(ids))
    return Found(side, notes)
