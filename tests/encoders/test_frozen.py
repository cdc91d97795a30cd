"""Kept features: the same tokens as the encoder's, found again for the same encoder and items, never half written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data.errors import DataError
from data.pairs.items import Side
from data.simulate.scenes import Scenes
from encoders.adapters import GeneTokens, VectorTokens
from encoders.encoder import Encoder, padded
from encoders.frozen import encoder_hash, features_of
from encoders.image import VisionTransformer
from encoders.text import TextTransformer
from fusion.tokens import Tokens


class Counted(Encoder):
    """A token per letter, and how many texts were asked for."""

    modality = "text"
    frozen = True

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.width, self.asked = 2, 0
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, raw: Any) -> Tokens:
        self._note(len(raw))
        letters = [torch.tensor([[ord(c) / 100, len(text)] for c in text]).reshape(-1, 2) for text in raw]
        tokens = padded(letters, 2, self.device)
        return tokens.with_x(tokens.x * self.scale)

    def _note(self, number: int) -> None:
        object.__setattr__(self, "_asked", getattr(self, "_asked", 0) + number)

    @property
    def count(self) -> int:
        return int(getattr(self, "_asked", 0))


TEXTS = ["abc", "", "a", "hello you", "bb"]


def side(texts: Sequence[str] = TEXTS) -> Side:
    return Side("text", [f"t{k}" for k in range(len(texts))], lambda rows: [texts[row] for row in rows])


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_kept_tokens_are_the_encoder_s_in_half_precision(tmp_path: Path, batch: int):
    encoder = Counted()
    kept = features_of(encoder, side(), tmp_path, batch)
    rows = [3, 1, 1, 0]
    got, want = kept[rows], encoder([TEXTS[row] for row in rows])
    assert torch.equal(got.keep, want.keep)
    torch.testing.assert_close(got.x, want.x, rtol=1e-3, atol=0)
    assert len(kept) == len(TEXTS)


def test_even_items_are_read_at_once(tmp_path: Path):
    torch.manual_seed(0)
    encoder = VisionTransformer(16, 1, 2, side=16, patch=8).eval()
    pictures = Scenes(scenes=12, side=16, most=2).load().left
    kept = features_of(encoder, pictures, tmp_path, batch=5)
    with torch.no_grad():
        torch.testing.assert_close(kept[[11, 0, 11]].x, encoder(pictures.load([11, 0, 11])).x, rtol=2e-3, atol=2e-3)


def test_features_are_computed_once_for_an_encoder_and_its_items(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    features_of(Counted(), side(), tmp_path, 2, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
    again = Counted()
    features_of(again, side(), tmp_path)
    assert again.count == 0
    for encoder, items in ((Counted(2.0), side()), (Counted(), side(["ab", "", "a", "hello you", "bb"]))):
        features_of(encoder, items, tmp_path)
        assert encoder.count >= 5
    assert len(list(tmp_path.iterdir())) == 3


def test_an_interrupted_computation_leaves_nothing(tmp_path: Path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features_of(Counted(), side(), tmp_path, 2, stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [float("nan"), 1e6])
def test_what_half_precision_cannot_hold_is_named(tmp_path: Path, scale: float):
    with pytest.raises(DataError, match="text t0: its features hold NaN or values beyond 65,504; leave it out"):
        features_of(Counted(scale), side(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_hash_follows_weights_settings_and_vocabulary_and_nothing_else():
    torch.manual_seed(0)
    encoder = TextTransformer(16, 1, 2, vocabulary=300)
    first = encoder_hash(encoder)
    assert encoder_hash(encoder.eval()) == first
    assert encoder_hash(encoder.requires_grad_(False)) == first
    encoder.learn(["red circle", "red circle"])
    learnt = encoder_hash(encoder)
    assert learnt != first
    with torch.no_grad():
        encoder.place[3, 2] += 1e-6
    assert encoder_hash(encoder) != learnt
    assert encoder_hash(VectorTokens(3)) != encoder_hash(VectorTokens(4))
    torch.manual_seed(0)
    one = GeneTokens({"a": [0, 1]})
    torch.manual_seed(0)
    assert encoder_hash(GeneTokens({"a": [1, 0]})) != encoder_hash(one)


def test_training_mode_is_given_back(tmp_path: Path):
    class Mode(Counted):
        frozen = False

        def forward(self, raw: Any) -> Tokens:
            assert not self.training
            return super().forward(raw)

    encoder = Mode().train()
    features_of(encoder, side(), tmp_path)
    assert encoder.training
    assert np.load(next(tmp_path.iterdir()) / "offsets.npy").tolist() == [0, 3, 3, 4, 13, 15]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    side = Side("text", ["a"], lambda rows: ["abc" for _ in rows])
    with pytest.raises(DataError, match=r"cannot be kept here .*; give a folder that can be written"):
        features_of(Counted(), side, tmp_path / "file" / "features")
