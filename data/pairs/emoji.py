"""Emoji: the same concepts drawn by four hands, with their words (data set `retrieval`, `emoji/`)."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from data.cohort.read import UNREADABLE
from data.errors import DataError
from data.pairs.collages import Collage, composed, drawn_collages
from data.pairs.items import Gallery, Pairs, PairSource, Side
from data.pairs.pictures import decoded
from data.sources import not_here, resolve

SEEN, UNSEEN = ("noto", "twemoji", "fluent"), "openmoji"
STYLES = (*SEEN, UNSEEN)
ATTRIBUTES = ("style", "skin_tone", "gender", "group", "subgroup")
SEARCHED_ONLY = "searched only"
"""Split of what is neither learnt from nor asked: the unseen style of concepts that are not tested."""
CREDITS = {
    "noto": ("Google Noto Emoji", "Apache-2.0"),
    "twemoji": ("Twemoji, Twitter and contributors", "CC BY 4.0"),
    "fluent": ("Fluent Emoji, Microsoft", "MIT"),
    "openmoji": ("OpenMoji", "CC BY-SA 4.0"),
}
CHANGES = "changes made: drawings rasterised to 64 pixels on white, 64 colours"
WORDS = "captions: emojibase-data (MIT), Unicode CLDR annotations (Unicode licence)"


@dataclass
class EmojiPack:
    """The table of concepts and the pictures of every art set.

    Attributes:
        folder: emoji.jsonl and one zip per art set
        table: one row per concept, as published, indexed by id; `caption` = label and keywords
    """

    folder: Path
    table: pd.DataFrame
    _content: dict[str, dict[str, bytes]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, folder: str | Path, flags: bool = False) -> EmojiPack:
        """Read the table; pictures are read when they are asked for.

        Args:
            folder: place of the files, or a place in a data set
            flags: keep the 270 flags, which ask for knowledge of the world

        Raises:
            DataError: a file is not here
        """
        place = resolve(folder)
        missing = [name for name in ("emoji.jsonl", *(f"{s}.zip" for s in STYLES)) if not (place / name).is_file()]
        if missing:
            raise not_here(place / missing[0], "retrieval")
        table = pd.read_json(place / "emoji.jsonl", lines=True, dtype=False, convert_dates=False).set_index("id")
        table = table if flags else table[table["group"] != "flags"]
        table = table.astype(object).where(table.notna(), None)
        words = [f"{label}: {', '.join(keys)}" for label, keys in zip(table["label"], table["keywords"], strict=True)]
        return cls(place, table.assign(caption=words))

    def drawn_by_all(self) -> pd.DataFrame:
        """Concepts without skin tone that every art set has: the protocol set."""
        return self.table[self.table["skin_tone"].isna() & (self.table["images"].map(len) == len(STYLES))]

    def picture(self, style: str, concept: str) -> UInt8[np.ndarray, "3 64 64"]:
        """One drawing."""
        path = self.folder / f"{style}.zip"
        try:
            if style not in self._content:
                with zipfile.ZipFile(path) as packed:
                    self._content[style] = {name.removesuffix(".png"): packed.read(name) for name in packed.namelist()}
            return decoded(self._content[style][concept])
        except (*UNREADABLE, KeyError, ValueError, SyntaxError) as problem:
            raise DataError(f"{path}: no picture of {concept} ({problem}); import the data set again") from None

    def pictures(self, drawings: Sequence[tuple[str, str]]) -> UInt8[np.ndarray, "b 3 64 64"]:
        """Drawings of (style, concept)."""
        return np.stack([self.picture(*drawing) for drawing in drawings])


class EmojiPairs(PairSource):
    """Drawings and their words.

    Protocol A: one drawing, `label: keywords`; learnt on three art sets, tested on unseen concepts in each of them, in
    an unseen art set, and among all concepts. B: four drawings in one picture, the caption lists their labels in
    another order; test pictures come in groups of four that share three of their drawings. C: a drawing finds the same
    concept drawn by other hands. D: all drawings with skin tones and genders, for attributes: style, skin_tone, gender,
    group, subgroup. Concepts are split by family: no relative of a test concept is learnt from.

    Args:
        protocol: A, B, C or D
        folder: emoji.jsonl and the four zips; default: the data set `retrieval`
        flags: keep flags, which ask for knowledge of the world
        collages: pictures to learn from in B
        seed: of the collages
    """

    def __init__(
        self,
        protocol: Literal["A", "B", "C", "D"] = "A",
        folder: str = "retrieval/emoji",
        flags: bool = False,
        collages: int = 6000,
        seed: int = 0,
    ):
        if collages < 1:
            raise ValueError(f"collages={collages}: expected at least 1")
        self.protocol, self.folder, self.flags, self.collages, self.seed = protocol, folder, flags, collages, seed

    def _read(self) -> Pairs:
        pack = EmojiPack.read(self.folder, self.flags)
        if self.protocol == "B":
            return collage_pairs(pack, self.collages, self.seed)
        if self.protocol == "C":
            return style_pairs(pack)
        return drawing_pairs(pack, everything=self.protocol == "D")


def drawing_pairs(pack: EmojiPack, everything: bool) -> Pairs:
    """Protocols A and D: every drawing and the caption of its concept."""
    concepts = pack.table if everything else pack.drawn_by_all()
    drawings = [(style, c) for style in STYLES for c in concepts.index if style in concepts.at[c, "images"]]
    row_of = {concept: row for row, concept in enumerate(concepts.index)}
    captions = concepts["caption"].tolist()
    table = _table(pack, drawings, all_styles=everything)
    right_table = concepts[["split", "family", "group", "subgroup", "gender", "skin_tone"]]
    galleries = []
    if everything:
        for split in ("val", "test"):
            rows, right = _where(table["split"] == split), _where(right_table["split"] == split)
            galleries.append(Gallery(split, split, rows, right, rows, right))
    else:
        galleries = by_style(table, right_table)
    return Pairs(
        "emoji, attributes" if everything else "emoji",
        Side("image", list(table.index), lambda rows: pack.pictures([drawings[row] for row in rows])),
        Side("text", [str(c) for c in concepts.index], lambda rows: [captions[row] for row in rows]),
        [(row_of[concept],) for _, concept in drawings],
        table,
        right_table,
        galleries,
        ATTRIBUTES if everything else ("style", "group", "subgroup"),
        [f"{len(concepts)} concepts in {len(drawings)} drawings", CHANGES, WORDS],
    )


def style_pairs(pack: EmojiPack) -> Pairs:
    """Protocol C: drawings of the same concept by other hands; the query's own art set is not searched."""
    concepts = list(pack.drawn_by_all().index)
    drawings = [(style, concept) for style in STYLES for concept in concepts]
    table, n = _table(pack, drawings), len(concepts)
    matches = [tuple(k * n + row % n for k in range(len(STYLES)) if k != row // n) for row in range(len(drawings))]
    side = Side("image", list(table.index), lambda rows: pack.pictures([drawings[row] for row in rows]))
    galleries = []
    for split, styles in (("val", SEEN), ("test", STYLES)):
        tested = table["split"] == split
        for style in styles:
            own = _where(tested & (table["style"] == style))
            others = _where(tested & (table["style"] != style) & table["style"].isin(styles))
            galleries.append(Gallery(_named(style, split), split, own, own, others, others))
    return Pairs(
        "emoji, other hands",
        side,
        side,
        matches,
        table,
        table,
        galleries,
        ("style", "group", "subgroup"),
        [CHANGES, WORDS],
    )


def collage_pairs(pack: EmojiPack, number: int, seed: int) -> Pairs:
    """Protocol B: four drawings in one picture, four labels in one caption."""
    concepts = pack.drawn_by_all()
    rng = np.random.default_rng(seed)
    drawn: list[tuple[str, str, Collage]] = []
    captions: list[Collage] = []
    splits: list[str] = []
    matches: list[tuple[int, ...]] = []
    for split, groups in (("train", None), ("val", 100), ("test", 100)):
        names = [str(concept) for concept in concepts.index[concepts["split"] == split]]
        for k, collage in enumerate(
            drawn_collages(names, number if groups is None else groups, groups is not None, rng)
        ):
            styles = (SEEN[k % len(SEEN)],) if split == "train" else SEEN if split == "val" else STYLES
            for style in styles:
                drawn.append((split, style, collage))
                matches.append((len(captions),))
            captions.append(collage)
            splits.append(split)
    texts = [", ".join(concepts.at[concept, "label"] for concept in collage.told) for collage in captions]
    right_ids = [f"{split}-{row}" for row, split in enumerate(splits)]
    credits = [CREDITS[style] for _, style, _ in drawn]
    table = pd.DataFrame(
        {
            "split": [split for split, _, _ in drawn],
            "style": [style for _, style, _ in drawn],
            "attribution": [who for who, _ in credits],
            "licence": [terms for _, terms in credits],
        },
        index=[f"{style}/{right_ids[match[0]]}" for (_, style, _), match in zip(drawn, matches, strict=True)],
    )

    def pictures(rows: Sequence[int]) -> UInt8[np.ndarray, "b 3 128 128"]:
        asked = [drawn[row] for row in rows]
        return np.stack([composed(pack.pictures([(style, c) for c in collage.shown])) for _, style, collage in asked])

    right_table = pd.DataFrame({"split": splits}, index=right_ids)
    return Pairs(
        "emoji collages",
        Side("image", list(table.index), pictures),
        Side("text", right_ids, lambda rows: [texts[row] for row in rows]),
        matches,
        table,
        right_table,
        by_style(table, right_table),
        ("style",),
        [f"{len(texts)} sets of four concepts in {len(drawn)} collages", CHANGES, WORDS],
    )


def _table(pack: EmojiPack, drawings: Sequence[tuple[str, str]], all_styles: bool = False) -> pd.DataFrame:
    styles, concepts = [style for style, _ in drawings], [concept for _, concept in drawings]
    table = pack.table.loc[concepts, ["split", "base", "family", "group", "subgroup", "gender", "skin_tone"]]
    table = table.assign(
        style=styles,
        attribution=[CREDITS[style][0] for style in styles],
        licence=[CREDITS[style][1] for style in styles],
    )
    table.index = pd.Index([f"{style}/{concept}" for style, concept in drawings])
    if not all_styles:
        table.loc[(table["style"] == UNSEEN) & (table["split"] != "test"), "split"] = SEARCHED_ONLY
    return table


def by_style(table: pd.DataFrame, right_table: pd.DataFrame) -> list[Gallery]:
    """Every seen style in validation and test, the unseen one in test, then test queries among everything.

    Args:
        table: one row per drawing: style, split
        right_table: one row per concept: split
    """
    found, among_all = [], []
    for split, styles in (("val", SEEN), ("test", STYLES)):
        right = _where(right_table["split"] == split)
        for style in styles:
            own = table["style"] == style
            left = _where(own & (table["split"] == split))
            found.append(Gallery(_named(style, split), split, left, right, left, right))
            if split == "test":
                everybody = _where(own), list(range(len(right_table)))
                among_all.append(Gallery(f"{_named(style, split)}, full gallery", split, left, right, *everybody))
    return found + among_all


def _named(style: str, split: str) -> str:
    name = f"{style} (unseen style)" if style == UNSEEN else style
    return name if split == "test" else f"{name}, {split}"


def _where(mask: pd.Series) -> list[int]:
    rows: list[int] = np.flatnonzero(mask.to_numpy()).tolist()
    return rows
