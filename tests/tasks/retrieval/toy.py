"""Small coloured squares and their words, for everything that runs a retrieval config from end to end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from data.pairs.items import Pairs, PairSource, Side, galleries_of_splits

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 220), "black": (20, 20, 20)}
CORNERS = {"upper left": (0, 0), "upper right": (0, 1), "lower left": (1, 0), "lower right": (1, 1)}
SIDE = 16


def square(colour: str, corner: str, seed: int) -> np.ndarray:
    """One picture: a coloured quarter on white, with a little noise."""
    rng = np.random.default_rng(seed)
    picture = np.full((3, SIDE, SIDE), 245.0)
    row, column = CORNERS[corner]
    half = SIDE // 2
    quarter = picture[:, row * half : (row + 1) * half, column * half : (column + 1) * half]
    quarter[:] = np.array(COLOURS[colour])[:, None, None]
    return (picture + rng.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)


class ToyPairs(PairSource):
    """Pictures of a coloured quarter and a caption that names colour and corner.

    Args:
        copies: pictures of each of the 16 kinds
        nothing: give no test items
    """

    def __init__(self, copies: int = 6, nothing: bool = False):
        self.copies, self.nothing = copies, nothing

    def _read(self) -> Pairs:
        kinds = [(colour, corner) for colour in COLOURS for corner in CORNERS]
        drawn = [(kind, copy) for copy in range(self.copies) for kind in kinds]
        splits = ["test" if copy == 0 else "val" if copy == 1 else "train" for _, copy in drawn]
        if self.nothing:
            splits = ["val" if split == "test" else split for split in splits]
        pictures = np.stack([square(*kind, seed) for seed, (kind, _) in enumerate(drawn)])
        names = [f"{colour}-{corner.replace(' ', '-')}-{copy}" for (colour, corner), copy in drawn]
        texts = [f"a {colour} quarter at the {corner}" for (colour, corner), _ in drawn]
        colours, corners = [c for (c, _), _ in drawn], [c for (_, c), _ in drawn]
        table = pd.DataFrame({"split": splits, "colour": colours, "corner": corners}, index=names)
        table = table.assign(attribution="Toy Painters", licence="CC0")
        right_table = pd.DataFrame({"split": splits}, index=[f"text-{name}" for name in names])

        def words(rows: Sequence[int]) -> list[Any]:
            return [texts[row] for row in rows]

        same = [tuple(k for k, other in enumerate(drawn) if other == one) for one in drawn]
        return Pairs(
            "toy squares",
            Side("image", names, lambda rows: pictures[list(rows)]),
            Side("text", list(right_table.index), words),
            same,
            table,
            right_table,
            galleries_of_splits(table, right_table),
            ("colour", "corner"),
            ["96 squares"],
        )


def config(runs: Path, **more: Any) -> dict[str, Any]:
    """A config that trains for seconds."""
    small = {"width": 16, "depth": 1, "heads": 2, "dropout": 0.0}
    return {
        "task": "retrieval",
        "name": "hybrid",
        "pairs": {"class_path": "tests.tasks.retrieval.toy.ToyPairs", "init_args": {"copies": 4}},
        "left": {"class_path": "VisionTransformer", "init_args": {**small, "side": SIDE, "patch": 8}},
        "right": {"class_path": "TextTransformer", "init_args": {**small, "tokens": 12, "vocabulary": 300}},
        "objective": "HybridContrast",
        "rivals": {"global": "GlobalContrast"},
        "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.005}},
        "towers": {"width": 16, "hidden": 32, "blocks": 1, "heads": 2, "dropout": 0.0},
        "fit": {"batch_size": 16, "warmup": 2},
        "trainer": {"max_epochs": 8, "accelerator": "cpu"},
        "runs": str(runs),
        **more,
    }


def written(folder: Path, **more: Any) -> str:
    """The config as a file."""
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(config(folder / "runs", **more)))
    return str(path)


def save_picture(path: Path, colour: str = "red", corner: str = "upper left", seed: int = 99) -> Path:
    """A picture file."""
    Image.fromarray(square(colour, corner, seed).transpose(1, 2, 0)).save(path)
    return path
