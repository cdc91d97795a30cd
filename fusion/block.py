"""Residual blocks: attention and feed-forward around a stream of tokens."""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn

from fusion.attention import AttentionOp
from fusion.dropout import Dropout
from fusion.tokens import Tokens


class FeedForward(nn.Sequential):
    """Linear, activation, dropout, linear, dropout, on each token alone.

    Args:
        width: token width
        hidden: width between
        dropout: probability of dropping an activation
        activation: nonlinearity between
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.0, activation: Literal["gelu", "relu"] = "gelu"):
        between = nn.GELU() if activation == "gelu" else nn.ReLU()
        super().__init__(
            nn.Linear(width, hidden), between, nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )


class Block(nn.Module):
    """Tokens read themselves or a source, then pass a feed-forward layer; both are added to what was there.

    Pre-norm: `x + op(LN x)`, then `x + ff(LN x)`. Post-norm: `LN(x + op(x))`, then `LN(x + ff(x))`.
    Where the source is absent the read adds nothing, biases included.

    Args:
        width: token width
        op: who reads whom, and how
        feed_forward: second half of the block; None leaves it out
        norm: where the layer norms stand
        dropout: probability of dropping what was read
    """

    def __init__(
        self,
        width: int,
        op: AttentionOp,
        feed_forward: nn.Module | None = None,
        norm: Literal["pre", "post"] = "pre",
        dropout: float = 0.0,
    ):
        super().__init__()
        if norm not in ("pre", "post"):
            raise ValueError(f"Block: norm={norm!r}; expected 'pre' or 'post'")
        self.op, self.feed_forward, self.pre = op, feed_forward, norm == "pre"
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        if feed_forward is not None:
            self.feed_forward_norm = nn.LayerNorm(width)

    def forward(self, tokens: Tokens, source: Tokens | None = None) -> Tokens:
        tokens = tokens.zeroed()
        asking = tokens.with_x(self.norm(tokens.x)) if self.pre else tokens
        read = self.dropout(self.op(asking, source).y)
        if source is not None:
            read = read.masked_fill(~source.present[:, None, None], 0.0)
        x = tokens.x + read
        if not self.pre:
            x = self.norm(x)
        if self.feed_forward is not None:
            x = self._second_half(x, self.feed_forward)
        return tokens.with_x(x)

    def first_rows(self, tokens: Tokens, rows: int) -> Tokens:
        """The first `rows` tokens of `self(tokens)`, without computing the others."""
        tokens = tokens.zeroed()
        asked = tokens.with_x(self.norm(tokens.x)) if self.pre else tokens
        read = self.dropout(self.op(_first(asked, rows), asked).y)
        x = tokens.x[:, :rows] + read
        if not self.pre:
            x = self.norm(x)
        if self.feed_forward is not None:
            x = self._second_half(x, self.feed_forward)
        return _first(tokens, rows).with_x(x)

    def step(self, new: Tokens, state: Any, present: Bool[Tensor, " b"] | None = None) -> tuple[Tokens, Any]:
        """`forward`'s rows of the new tokens while decoding, for operators with a `step`.

        Args:
            new: the tokens after those of `state`
            state: what the operator's last step returned; None = nothing was read yet; of a reader of a source, what
                it remembers of it
            present: of a reader of a source: which items have that source at all
        """
        new = new.zeroed()
        op: Any = self.op
        read, state = op.step(new.with_x(self.norm(new.x)) if self.pre else new, state)
        added = read.y if present is None else read.y.masked_fill(~present[:, None, None], 0.0)
        x = new.x + added
        if not self.pre:
            x = self.norm(x)
        if self.feed_forward is not None:
            x = self._second_half(x, self.feed_forward)
        return new.with_x(x), state

    def _second_half(self, x: Float[Tensor, "b n w"], feed_forward: nn.Module) -> Float[Tensor, "b n w"]:
        if self.pre:
            return x + feed_forward(self.feed_forward_norm(x))
        return self.feed_forward_norm(x + feed_forward(x))


def _first(tokens: Tokens, rows: int) -> Tokens:
    return Tokens(tokens.x[:, :rows], tokens.keep[:, :rows], tokens.place[slice(rows)])
