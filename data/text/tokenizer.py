"""Text -> numbers and back: byte-pair encoding learnt from the captions at hand, so that no text is unknown.

Sennrich et al. 2016 (1508.07909) on bytes: pieces of words are merged, most frequent pair first, until the vocabulary
is full. Every byte is a piece of its own, so that any text can be written.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from data.errors import DataError

PADDING = 0
FIRST_BYTE = 1
FIRST_MERGE = FIRST_BYTE + 256
SMALLEST = FIRST_MERGE
LONGEST_PIECE = 4 * 65
"""Bytes of a piece at most: a word is matched up to 64 characters and the blank before it."""
_WORD = re.compile(r" ?\w{1,64}| ?[^\w\s]")
Pair = tuple[int, int]


class Encoded(NamedTuple):
    """A text as numbers.

    Attributes:
        ids: at most as many as asked for
        cut: what was left out at the end, as text; empty when everything is there
        total: how many numbers the whole text has
    """

    ids: list[int]
    cut: str
    total: int


class Tokenizer:
    """A vocabulary of pieces of words. Number 0 is padding, 1 to 256 are bytes, the others are learnt.

    Args:
        merges: pairs of numbers, in the order in which they were learnt; the k-th makes number 257 + k
    """

    def __init__(self, merges: Iterable[Sequence[int]] = ()):
        self.merges: list[Pair] = [(int(a), int(b)) for a, b in merges]
        self._rank = {pair: k for k, pair in enumerate(self.merges)}
        self._bytes = [b"", *(bytes([value]) for value in range(256))]
        for a, b in self.merges:
            if max(a, b) >= len(self._bytes) or min(a, b) < FIRST_BYTE:
                raise ValueError(f"Tokenizer: merge of {a} and {b} before they exist; the vocabulary is damaged")
            self._bytes.append(self._bytes[a] + self._bytes[b])
            if len(self._bytes[-1]) > LONGEST_PIECE:
                raise ValueError(f"Tokenizer: a piece longer than any word, {LONGEST_PIECE} bytes; it is damaged")
        self._words: dict[str, list[int]] = {}

    @classmethod
    def learn(cls, texts: Iterable[str], vocabulary: int = 4096) -> Tokenizer:
        """The pieces that these texts are made of.

        Args:
            texts: training captions alone
            vocabulary: numbers at most, padding and bytes included; pairs seen once are not merged
        """
        if vocabulary < SMALLEST:
            raise ValueError(f"vocabulary={vocabulary}: expected at least {SMALLEST}, the bytes and padding")
        count = Counter(word for text in texts for word in words(text))
        return cls(_merges(count, vocabulary - SMALLEST))

    @classmethod
    def restored(cls, state: Any) -> Tokenizer:
        """The vocabulary that `state` wrote, from a file nobody vouches for.

        Raises:
            DataError: it is not one
        """
        try:
            return cls([(int(a), int(b)) for a, b in state["merges"]])
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as problem:
            raise DataError(f"not the vocabulary of a tokenizer ({problem}); train the run again") from None

    @property
    def state(self) -> dict[str, list[list[int]]]:
        """Everything that makes this vocabulary, as plain numbers."""
        return {"merges": [list(pair) for pair in self.merges]}

    def __len__(self) -> int:
        return len(self._bytes)

    def encode(self, text: str, limit: int | None = None) -> Encoded:
        """Numbers of a text; those beyond `limit` are cut, and said."""
        ids = [number for word in words(text) for number in self._pieces(word)]
        if limit is None or len(ids) <= limit:
            return Encoded(ids, "", len(ids))
        return Encoded(ids[:limit], self.decode(ids[limit:]), len(ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some numbers, as `normal` writes it."""
        return b"".join(self._bytes[number] for number in ids).decode("utf-8", "replace").strip()

    def piece(self, number: int) -> str:
        """The text of one number."""
        return self._bytes[number].decode("utf-8", "replace").strip()

    def _pieces(self, word: str) -> list[int]:
        found = self._words.get(word)
        if found is None:
            found = [FIRST_BYTE + value for value in word.encode()]
            while len(found) > 1:
                rank, at = min(
                    (self._rank.get((a, b), len(self.merges)), k) for k, (a, b) in enumerate(pairwise(found))
                )
                if rank == len(self.merges):
                    break
                found[at : at + 2] = [FIRST_MERGE + rank]
            self._words[word] = found
        return found


def normal(text: str) -> str:
    """Compatible characters made equal (NFKC), case folded, blanks single: what a tokenizer tells apart."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """Words and marks of a text, each with the blank before it; the first counts as if one stood there."""
    return _WORD.findall(f" {tidy}") if (tidy := normal(text)) else []


def _merges(count: Counter[str], wanted: int) -> list[Pair]:
    """The most frequent pair, merged everywhere, again and again; of equal pairs the one of lower numbers."""
    spelt = [[FIRST_BYTE + value for value in word.encode()] for word in count]
    times = list(count.values())
    total: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for k, ids in enumerate(spelt):
        for pair in pairwise(ids):
            total[pair] += times[k]
            where[pair].add(k)
    waiting = [(-n, pair) for pair, n in total.items()]
    heapq.heapify(waiting)
    found: list[Pair] = []
    while waiting and len(found) < wanted:
        counted, best = heapq.heappop(waiting)
        if -counted != total[best]:
            continue
        if -counted < 2:
            break
        number = FIRST_MERGE + len(found)
        found.append(best)
        changed: set[Pair] = set()
        for k in where.pop(best):
            changed |= _replace(spelt, k, best, number, times[k], total, where)
        total.pop(best, None)
        for pair in changed - {best}:
            if total[pair] > 0:
                heapq.heappush(waiting, (-total[pair], pair))
    return found


def _replace(
    spelt: list[list[int]],
    k: int,
    best: Pair,
    number: int,
    times: int,
    total: Counter[Pair],
    where: defaultdict[Pair, set[int]],
) -> set[Pair]:
    """Merge a pair in one word and keep the counts true; the pairs whose count changed."""
    old = spelt[k]
    new: list[int] = []
    at = 0
    while at < len(old):
        if at + 1 < len(old) and (old[at], old[at + 1]) == best:
            new.append(number)
            at += 2
        else:
            new.append(old[at])
            at += 1
    spelt[k] = new
    changed = set()
    for pair in pairwise(old):
        total[pair] -= times
        changed.add(pair)
    for pair in pairwise(new):
        total[pair] += times
        where[pair].add(k)
        changed.add(pair)
    return changed
