"""A collection without some of its items: those that were left without a partner go as well."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from data.errors import DataError
from data.pairs.items import Gallery, Pairs


def without(pairs: Pairs, left: Collection[int], right: Collection[int], why: str) -> Pairs:
    """The same collection, fewer items; each one that is left out has its line in the account.

    Args:
        pairs: the collection; it is not changed
        left, right: rows that cannot be used
        why: what is said of them

    Raises:
        DataError: nothing remains
    """
    if not left and not right:
        return pairs
    gone_left, gone = set(left), set(right)
    matches = _kept(pairs.matches, set(range(len(pairs.right))) - gone)
    kept_left = [row for row, own in enumerate(matches) if own and row not in gone_left]
    found = {row for at in kept_left for row in matches[at]}
    lonely = {row for row, own in enumerate(pairs.partners) if own} - found
    kept_right = sorted(set(range(len(pairs.right))) - gone - lonely)
    account = [
        *pairs.account,
        *_lines(pairs.left.ids, gone_left, set(range(len(pairs.left))) - set(kept_left), why),
        *_lines(pairs.right.ids, gone, set(range(len(pairs.right))) - set(kept_right), why),
    ]
    if not kept_left or not kept_right:
        raise DataError(f"{pairs.name}: no item is left; {account[-1]}")
    left_at, right_at = ({row: at for at, row in enumerate(rows)} for rows in (kept_left, kept_right))
    galleries = []
    for gallery in pairs.galleries:
        searched = [row for row in gallery.left_gallery if row in left_at]
        opposite = [row for row in gallery.right_gallery if row in right_at]
        asking = _answered(gallery.left_queries, pairs.matches, matches, set(opposite))
        other = _answered(gallery.right_queries, pairs.partners, _kept(pairs.partners, left_at), set(searched))
        account += [
            f"{side.ids[row]}: none of its partners is left in {gallery.name}; not asked there"
            for side, at, before, after in (
                (pairs.left, left_at, gallery.left_queries, set(asking)),
                (pairs.right, right_at, gallery.right_queries, set(other)),
            )
            for row in before
            if row in at and row not in after
        ]
        galleries.append(
            Gallery(
                gallery.name,
                gallery.split,
                [left_at[row] for row in asking if row in left_at],
                [right_at[row] for row in other if row in right_at],
                [left_at[row] for row in searched],
                [right_at[row] for row in opposite],
            )
        )
    return replace(
        pairs,
        left=pairs.left.take(kept_left),
        right=pairs.right.take(kept_right),
        matches=[tuple(right_at[row] for row in matches[at]) for at in kept_left],
        table=pairs.table.iloc[kept_left],
        right_table=pairs.right_table.iloc[kept_right],
        galleries=[one for one in galleries if one.left_queries and one.right_queries],
        account=account,
    )


def _kept(partners: Sequence[tuple[int, ...]], kept: Collection[int]) -> list[tuple[int, ...]]:
    return [tuple(row for row in own if row in kept) for own in partners]


def _answered(
    queries: Sequence[int],
    before: Sequence[tuple[int, ...]],
    after: Sequence[tuple[int, ...]],
    searched: Collection[int],
) -> list[int]:
    """Queries that still have a partner among those that are searched, or never had one."""
    return [row for row in queries if not before[row] or any(partner in searched for partner in after[row])]


def _lines(ids: list[str], named: set[int], gone: set[int], why: str) -> list[str]:
    return [
        f"{ids[row]}: {why}; left out" if row in named else f"{ids[row]}: none of its partners is left; left out"
        for row in sorted(gone)
    ]
