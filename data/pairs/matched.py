"""Two collections whose items belong together by their keys: any modality with any other, embeddings among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pandas as pd

from data.errors import DataError
from data.pairs.arrays import Vectors
from data.pairs.items import Pairs, PairSource, galleries_of_splits
from data.pairs.sources import ItemSource
from data.pairs.tables import column, read_rows, splits
from data.sources import resolve

RESERVED = ("split", "attribution", "licence")


class MatchedPairs(PairSource):
    """Items of two sources, matched by equal keys or by a table.

    Args:
        left, right: the items
        table: .csv, .tsv or .jsonl with a row per pair: `left` and `right` (keys), perhaps `split`, `attribution`,
            `licence`, and attributes of the left item in every other column; None = items of the same key belong
            together. Without `split`, linked items are split by a hash, 70/15/15
        name: what reports call the collection
    """

    def __init__(self, left: ItemSource, right: ItemSource, table: str | None = None, name: str = "pairs"):
        self.left, self.right, self.table, self.name = left, right, table, name

    def _read(self) -> Pairs:
        if self.table is None:
            found = [self.left.read(), self.right.read()]
            known = set(found[1].side.ids)
            about = pd.DataFrame(index=[key for key in found[0].side.ids if key in known])
            partners = {key: [key] for key in about.index}
            where = f"{self.left.modality} and {self.right.modality}"
        else:
            path = resolve(self.table)
            where, rows = str(path), read_rows(path)
            lefts, rights = column(rows, "left", path), column(rows, "right", path)
            keys = pd.DataFrame({"left": lefts, "right": rights}).dropna()
            found = [self.left.read(keys["left"].tolist()), self.right.read(keys["right"].tolist())]
            known = set(found[1].side.ids)
            partners = defaultdict(list)
            for key, partner in zip(keys["left"], keys["right"], strict=True):
                if partner in known and partner not in partners[key]:
                    partners[key].append(partner)
            about = rows.loc[keys.index].assign(_key=keys["left"]).drop_duplicates("_key").set_index("_key")
            about = about.drop(columns=["left", "right"])
        return self._paired(found, about, partners, where)

    def _paired(self, found: list, about: pd.DataFrame, partners: dict[str, list[str]], where: str) -> Pairs:
        left, right = found[0].side, found[1].side
        kept = [row for row, key in enumerate(left.ids) if partners.get(key)]
        if not kept:
            raise DataError(f"{where}: no item has a partner (keys like {left.ids[0]!r} and {right.ids[0]!r})")
        owned = {partner for key in left.ids for partner in partners.get(key, [])}
        lone = [key for key in left.ids if not partners.get(key)] + [key for key in right.ids if key not in owned]
        left = left.take(kept)
        about = about.loc[left.ids].astype(object)
        about.index = pd.Index(left.ids)
        stated = about["split"].tolist() if "split" in about else [None] * len(left)
        about["split"] = splits(stated, families([partners[key] for key in left.ids]), where)
        for credit in RESERVED[1:]:
            if credit not in about:
                about[credit] = None
        owner: dict[str, str] = {}
        for key, split in zip(left.ids, about["split"], strict=True):
            for partner in partners[key]:
                if owner.setdefault(partner, split) != split:
                    raise DataError(
                        f"{where}: {partner} belongs to items of two splits, {owner[partner]} and {split}; give its "
                        "partners one split"
                    )
        right = right.take([row for row, key in enumerate(right.ids) if key in owner])
        row_of = {key: row for row, key in enumerate(right.ids)}
        right_table = pd.DataFrame({"split": [owner[key] for key in right.ids]}, index=right.ids)
        account = [f"{len(left)} {left.name} items with {len(right)} {right.name} items"]
        account += [f"{where}: {key} has no partner and is left out" for key in lone]
        return Pairs(
            self.name,
            left,
            right,
            [tuple(row_of[partner] for partner in partners[key]) for key in left.ids],
            about,
            right_table,
            galleries_of_splits(about, right_table),
            tuple(str(c) for c in about.columns if c not in RESERVED),
            [*account, *found[0].notes, *found[1].notes],
        )


def families(partners: Sequence[Sequence[str]]) -> list[str]:
    """Per item a name that it shares with every item it is linked to through partners, so that no split cuts a link.

    Args:
        partners: keys of the partners of each item, at least one
    """
    head: dict[str, str] = {}

    def headed(key: str) -> str:
        while head.setdefault(key, key) != key:
            head[key] = head[head[key]]
            key = head[key]
        return key

    for keys in partners:
        first, *others = sorted(headed(key) for key in keys)
        for other in others:
            head[other] = first
    return [headed(keys[0]) for keys in partners]


class EmbeddingPairs(MatchedPairs):
    """Two arrays of embeddings whose rows belong together.

    Args:
        left, right: .npy, or .npz with `vectors` and `ids`; `[n, width]` or `[n, tokens, width]`
        table: pairs by key, see `MatchedPairs`; None = equal ids, or row by row where the files hold none
        name: what reports call the collection
    """

    def __init__(self, left: str, right: str, table: str | None = None, name: str = "embeddings"):
        super().__init__(Vectors(left), Vectors(right), table, name)
