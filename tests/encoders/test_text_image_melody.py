"""Encoders of retrieval: padding reaches nothing, a batch changes no item, what is cut is said, state comes back."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange

from encoders.encoder import Encoder, padded
from encoders.frozen import encoder_hash
from encoders.image import MobileNetTokens, PretrainedImage, VisionTransformer
from encoders.melody import MelodyTransformer
from encoders.patch import MobileNetV2
from encoders.text import PretrainedText, TextTransformer

TEXTS = ["a red circle", "blue", "two green squares and a ring"]
MELODIES = [
    np.array([[60, 0, 1], [62, 1, 0.5], [67, 2, 2]], np.float32),
    np.array([[72, 0, 4]], np.float32),
    np.array([[50 + k, k, 1] for k in range(12)], np.float32),
]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)


def small_text() -> TextTransformer:
    return TextTransformer(16, 2, 2, tokens=12, vocabulary=300)


def small_image() -> VisionTransformer:
    return VisionTransformer(16, 2, 2, side=32, patch=8)


def small_melody(pitch: bool = True) -> MelodyTransformer:
    return MelodyTransformer(16, 2, 2, tokens=8, pitch=pitch)


@pytest.mark.parametrize(
    ("make", "raw"),
    [(small_text, TEXTS), (small_image, IMAGES), (small_melody, MELODIES)],
    ids=["text", "image", "melody"],
)
def test_an_item_s_tokens_do_not_depend_on_its_batch(make: Callable[[], Encoder], raw: Any):
    torch.manual_seed(0)
    encoder = make().eval()
    together = encoder(raw)
    for row in range(len(raw)):
        alone = encoder(raw[row : row + 1])
        torch.testing.assert_close(together.x[row][together.keep[row]], alone.x[0][alone.keep[0]])
    assert together.width == encoder.width
    assert [len(labels) for labels in encoder.labels(raw)] == together.keep.sum(dim=1).tolist()


@pytest.mark.parametrize(
    ("make", "raw"),
    [(small_text, TEXTS), (small_image, IMAGES), (small_melody, MELODIES)],
    ids=["text", "image", "melody"],
)
def test_every_weight_is_learnt(make: Callable[[], Encoder], raw: Any):
    torch.manual_seed(0)
    encoder = make().train()
    encoder.learn(raw)
    tokens = encoder(raw)
    tokens.x.pow(2).mul(torch.rand_like(tokens.x)).sum().backward()
    still = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not still


def test_an_empty_text_has_no_token_and_no_effect():
    torch.manual_seed(0)
    encoder = small_text().eval()
    tokens = encoder(["", "blue"])
    assert tokens.present.tolist() == [False, True]
    assert not tokens.x[0].any()
    assert encoder([""]).x.shape == (1, 1, 16)


def test_text_beyond_the_limit_is_cut_and_said():
    encoder = TextTransformer(16, 1, 2, tokens=2, vocabulary=300)
    encoder.learn(["red circle", "red circle"])
    assert encoder.cut(["red circle", "red circle red"]) == {
        1: "'red circle red': 3 tokens, the first 2 are read; cut: 'red'"
    }
    assert encoder.labels(["red circle red"]) == [["red", "circle"]]


def test_the_vocabulary_is_part_of_the_state():
    torch.manual_seed(0)
    one = small_text().eval()
    one.learn(TEXTS * 3)
    content = io.BytesIO()
    torch.save(one.state_dict(), content)
    content.seek(0)
    other = small_text().eval()
    assert other.labels(TEXTS) != one.labels(TEXTS)
    other.load_state_dict(torch.load(content, weights_only=True))
    torch.testing.assert_close(other(TEXTS).x, one(TEXTS).x, rtol=0, atol=0)
    with pytest.raises(ValueError, match="TextTransformer: tokens=0; expected at least 1"):
        TextTransformer(tokens=0)


def test_patches_stand_where_they_are():
    torch.manual_seed(0)
    encoder = small_image().eval()
    before = encoder(IMAGES[:1])
    changed = IMAGES[:1].copy()
    changed[:, :, 8:16, 16:24] ^= 255
    moved = (
        (
            encoder.patches(encoder.normalised(changed, encoder.side))
            - encoder.patches(encoder.normalised(IMAGES[:1], encoder.side))
        )
        .abs()
        .sum(1)
    )
    assert torch.nonzero(moved[0]).tolist() == [[1, 2]]
    assert before.place.grid is not None
    assert before.place.grid[0, 6].tolist() == [2, 1]
    assert encoder.labels(IMAGES[:1])[0][6] == "2,3"
    with pytest.raises(ValueError, match="patch=7 must divide side=32"):
        VisionTransformer(16, 1, 2, side=32, patch=7)


def test_images_are_scaled_and_normalised_per_colour():
    encoder = VisionTransformer(16, 1, 2, side=32, patch=8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    want = (IMAGES / 255 - mean[:, None, None]) / std[:, None, None]
    for given in (IMAGES, IMAGES[:, :, ::-1][:, :, ::-1]):
        np.testing.assert_allclose(encoder.normalised(given, encoder.side).numpy(), want, atol=1e-5)
    flat = np.full((1, 3, 11, 50), 128, np.uint8)
    resized = encoder.normalised(flat, encoder.side)
    np.testing.assert_allclose(resized[0, :, 5, 5].numpy(), (128 / 255 - mean) / std, atol=1e-5)
    assert resized.shape == (1, 3, 32, 32)


@pytest.mark.unchecked
@pytest.mark.parametrize("wrong", [np.zeros((1, 3, 8, 8), np.float32), np.zeros((1, 8, 8, 3), np.uint8)])
def test_images_of_another_kind_are_refused(wrong: np.ndarray):
    with pytest.raises(ValueError, match=r"VisionTransformer: images are .* expected uint8 \[b, 3, y, x\], RGB"):
        small_image()(wrong)


def test_mobilenet_without_norms_is_the_same_function():
    encoder = MobileNetTokens(side=64)
    whole = MobileNetV2(device="cpu").network
    with torch.inference_mode():
        want = rearrange(whole.features(encoder.normalised(IMAGES, encoder.side)), "b c y x -> b (y x) c")
    got = encoder(IMAGES)
    torch.testing.assert_close(got.x, want, rtol=1e-3, atol=1e-4)
    assert got.x.shape == (3, 4, 1280)
    assert not got.x.requires_grad
    assert not encoder.train().network.training
    assert MobileNetTokens(side=64, frozen=False)(IMAGES[:1]).x.requires_grad


def test_a_local_vision_model_gives_its_patches(tmp_path: Path):
    import transformers

    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=56, patch_size=14
    )
    model = transformers.Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    said = {"image_mean": [0.7, 0.6, 0.5], "image_std": [0.2, 0.25, 0.3], "size": {"height": 56, "width": 56}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    encoder = PretrainedImage(str(tmp_path))
    with torch.inference_mode():
        want = model(pixel_values=encoder.normalised(IMAGES, encoder.side)).last_hidden_state[:, 1:]
    got = encoder(IMAGES)
    torch.testing.assert_close(got.x, want, rtol=1e-4, atol=1e-5)
    assert got.place.grid is not None
    assert got.place.grid[0, 5].tolist() == [1, 1]


def test_a_local_text_model_gives_its_words(tmp_path: Path):
    import transformers

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "circle", "##s", ","]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizerFast(vocab={word: k for k, word in enumerate(words)})
    tokenizer.save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    model = transformers.BertModel(config).eval()
    model.save_pretrained(tmp_path)
    encoder = PretrainedText(str(tmp_path), tokens=3)
    tokens = encoder(["red circles, blue", "", "blue"])
    assert tokens.keep.sum(dim=1).tolist() == [3, 0, 1]
    with torch.inference_mode():
        want = model(**tokenizer(["blue"], return_tensors="pt")).last_hidden_state[:, 1:2]
    torch.testing.assert_close(tokens.x[2:, :1], want)
    assert encoder.labels(["red circles, blue"]) == [["red", "circle", "s"]]
    assert encoder.cut(["blue", "Red circles, blue"]) == {
        1: "'Red circles, blue': 5 tokens, the first 3 are read; cut: ', blue'"
    }
    with pytest.raises(ValueError, match="tokens=600; this model reads 1 to 510"):
        PretrainedText(str(tmp_path), tokens=600)
    texts = ["red, blue", ",", ""]
    whole, words = PretrainedText(str(tmp_path)), PretrainedText(str(tmp_path), punctuation=False)
    assert words.labels(texts) == [["red", "blue"], [","], []]
    assert words(texts).keep.sum(dim=1).tolist() == [2, 1, 0]
    torch.testing.assert_close(words(texts).x[0], whole(texts).x[0, [0, 2]], rtol=0, atol=0)
    assert encoder_hash(words) != encoder_hash(whole)


@pytest.mark.parametrize("make", [PretrainedText, PretrainedImage])
def test_nothing_is_downloaded(make: Callable[[str], Encoder]):
    with pytest.raises(ValueError, match=r"model=some/name: no folder of a Hugging Face model .*; give a local one"):
        make("some/name")


def test_melodies_without_pitch_are_the_same_in_every_key():
    torch.manual_seed(0)
    higher = [own + np.array([5, 0, 0], np.float32) for own in MELODIES]
    deaf, hearing = small_melody(pitch=False).eval(), small_melody().eval()
    torch.testing.assert_close(deaf(higher).x, deaf(MELODIES).x, rtol=0, atol=0)
    assert (hearing(higher).x - hearing(MELODIES).x).abs().max() > 1e-4


def test_a_melody_s_end_and_its_faults_are_said():
    encoder = small_melody()
    assert encoder.cut(MELODIES) == {2: "melody of 12 notes: the first 8 are read; cut: from quarter 8 on"}
    assert encoder.labels(MELODIES[:1]) == [["C4", "D4", "G4"]]
    with pytest.raises(ValueError, match="melody 0 has a pitch beyond 0 to 127"):
        encoder([np.array([[130, 0, 1]], np.float32)])


def test_padding_is_zero_whatever_the_lengths():
    tokens = padded([torch.ones(2, 3), torch.ones(0, 3), torch.ones(1, 3)], 3, torch.device("cpu"))
    assert tokens.keep.tolist() == [[True, True], [False, False], [True, False]]
    assert torch.equal(tokens.x.sum(dim=2) > 0, tokens.keep)
