"""The vocabulary: any text comes back, merges are those of the definition, and what is cut is said."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.text.tokenizer import FIRST_BYTE, FIRST_MERGE, PADDING, SMALLEST, Tokenizer, normal, words

CAPTIONS = ["grinning face: happy, smile", "grinning cat", "a face with a smile", "cat and hat; that hat", "aaaa aaa"]


def by_definition(texts: list[str], vocabulary: int) -> list[tuple[int, int]]:
    """Byte-pair encoding, counted from scratch before every merge."""
    spelt = {w: [FIRST_BYTE + b for b in w.encode()] for text in texts for w in words(text)}
    times = Counter(w for text in texts for w in words(text))
    merges: list[tuple[int, int]] = []
    while len(merges) < vocabulary - SMALLEST:
        count: Counter[tuple[int, int]] = Counter()
        for w, ids in spelt.items():
            for pair in pairwise(ids):
                count[pair] += times[w]
        best = min(count, key=lambda pair: (-count[pair], pair), default=None)
        if best is None or count[best] < 2:
            break
        for w, ids in spelt.items():
            merged, at = [], 0
            while at < len(ids):
                if tuple(ids[at : at + 2]) == best:
                    merged.append(FIRST_MERGE + len(merges))
                    at += 2
                else:
                    merged.append(ids[at])
                    at += 1
            spelt[w] = merged
        merges.append(best)
    return merges


@pytest.mark.parametrize("vocabulary", [SMALLEST, SMALLEST + 7, SMALLEST + 500])
def test_merges_are_those_of_the_definition(vocabulary: int):
    assert Tokenizer.learn(CAPTIONS, vocabulary).merges == by_definition(CAPTIONS, vocabulary)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_comes_back(text: str):
    for tokenizer in (Tokenizer(), Tokenizer.learn(CAPTIONS, 300)):
        encoded = tokenizer.encode(text)
        assert tokenizer.decode(encoded.ids) == normal(text)
        assert PADDING not in encoded.ids
        assert all(number < len(tokenizer) for number in encoded.ids)


def test_learnt_words_are_short_and_unknown_ones_are_spelt():
    tokenizer = Tokenizer.learn(CAPTIONS, 400)
    assert [tokenizer.piece(number) for number in tokenizer.encode("Grinning FACE").ids] == ["grinning", "face"]
    assert len(tokenizer.encode("grinning").ids) == 1 < len(tokenizer.encode("xylophone").ids)


def test_what_is_beyond_the_limit_is_said():
    tokenizer = Tokenizer.learn(CAPTIONS, 400)
    text = "grinning face happy smile"
    encoded, whole = tokenizer.encode(text, 2), tokenizer.encode(text)
    assert encoded.ids == whole.ids[:2]
    assert (encoded.total, encoded.cut) == (len(whole.ids), "happy smile")
    assert tokenizer.encode("grinning face", 2).cut == ""


def test_a_vocabulary_is_its_merges():
    tokenizer = Tokenizer.learn(CAPTIONS, 400)
    again = Tokenizer([list(pair) for pair in tokenizer.merges])
    assert all(again.encode(text) == tokenizer.encode(text) for text in CAPTIONS)
    with pytest.raises(ValueError, match="the vocabulary is damaged"):
        Tokenizer([(300, 5)])
    with pytest.raises(ValueError, match="vocabulary=10: expected at least 257"):
        Tokenizer.learn(CAPTIONS, 10)
