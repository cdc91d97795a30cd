"""Who looked where: statistics of attention by site, while a context manager is open, without an n x s map.

    with observe(model, {"genes <- slide*": ["mass", "peak"], "slide <- genes": Ask("entropy", rows=[0, 7])}) as seen:
        model(batch)
    seen["genes <- slide"][0]["mass"]      # [b, h, s]: attention each slide token received

A site is the `site` its builder gave to a reader; readers inside others are "<site>/<name>", and readers nobody named
go by their path in the model. The statistics are of the softmax before dropout, over real queries only. They are
computed beside the read, never instead of it: the model's result stays bitwise the same, observed or not.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor, nn

from fusion.attention import AttentionOp, MultiHead
from fusion.tokens import Tokens
from fusion.weights import exact_weights, summarise
from kernels.attention import attend

QUANTITIES = {
    "mass": "attention each source token received, summed over real queries [b, h, s]",
    "entropy": "entropy of each query's weights, nats [b, h, n]",
    "peak": "largest weight of each query [b, h, n]",
    "argmax": "source token with the largest weight of each query, -1 where there is none [b, h, n]",
    "group_mass": "weight of each query on each group of source tokens [b, h, n, groups]",
    "rows": "exact weights of chosen query tokens [b, h, rows, s]",
}

IN_ONE_PASS = frozenset({"mass", "entropy", "peak"})  # by the kernel; the rest from chunks of rows
UNSEEN = (
    "took a way without softmax weights between its query and source tokens (landmarks, for instance), so there is "
    "nothing to observe; use an exact operator or setting there"
)


class Ask:
    """What to observe at a site.

    Args:
        want: names from `QUANTITIES`; `rows` and `group_mass` come by themselves with the arguments below
        rows: query tokens whose exact weights are wanted
        groups: group of each source token, 0, 1, ... (negative = none), `[s]` or `[b, s]`
    """

    def __init__(self, *want: str, rows: Sequence[int] | None = None, groups: Int[Tensor, "*b s"] | None = None):
        for name in want:
            if name not in QUANTITIES:
                raise ValueError(f"observe: unknown quantity {name!r}; {_nearest(name, QUANTITIES)}")
        if "rows" in want and rows is None:
            raise ValueError("observe: 'rows' needs the query tokens to show: Ask(rows=[0, 1])")
        if "group_mass" in want and groups is None:
            raise ValueError("observe: 'group_mass' needs groups: Ask(groups=ids), the group of each source token")
        self.want = frozenset(want) - {"rows"} | ({"group_mass"} if groups is not None else set())
        self.rows, self.groups = rows, groups
        if not self.want and rows is None:
            raise ValueError(f"observe: nothing was asked for; expected some of {', '.join(QUANTITIES)}")


Look = dict[str, Tensor]
Seen = dict[str, list[Look]]


def _nearest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"expected one of {', '.join(sorted(known))}"


def sites(model: nn.Module) -> dict[str, MultiHead]:
    """Every softmax reader of a model by its site; a site that two readers share gives way to their paths."""
    named: dict[str, str] = {}
    readers: list[tuple[str, str, MultiHead]] = []
    for path, module in model.named_modules():
        parent, _, name = path.rpartition(".")
        above, inside = named.get(parent, ""), path and isinstance(model.get_submodule(parent), AttentionOp)
        own = "" if inside else getattr(module, "site", "")
        named[path] = own or (f"{above}/{name}" if above else "")
        if isinstance(module, MultiHead):
            readers.append((named[path] or path or type(module).__name__, path, module))
    times = Counter(site for site, _, _ in readers)
    return {site if times[site] == 1 else path: op for site, path, op in readers}


def _asked(model: nn.Module, asks: Mapping[str, Ask | Collection[str]]) -> dict[str, tuple[MultiHead, Ask]]:
    """The readers that the names and patterns of `asks` mean."""
    known = sites(model)
    chosen: dict[str, tuple[MultiHead, Ask]] = {}
    for pattern, ask in asks.items():
        matches = [pattern] if pattern in known else fnmatch.filter(known, pattern)
        if not matches:
            raise ValueError(f"observe: unknown site {pattern!r}; {_nearest(pattern, known)}")
        if isinstance(ask, str):
            raise ValueError(f"observe: {pattern!r} asks for the string {ask!r}; expected a list of names, [{ask!r}]")
        for site in matches:
            if site in chosen:
                raise ValueError(f"observe: {site!r} is asked for twice, the second time by {pattern!r}")
            chosen[site] = (known[site], ask if isinstance(ask, Ask) else Ask(*ask))
    return chosen


@dataclass
class _Watch:
    """One reader under observation: stands in for its `attend` while the context is open."""

    op: MultiHead
    site: str
    ask: Ask
    grad: bool
    looks: list[Look]
    query: Tokens = field(init=False)
    sources: int = 0
    count: int = 0

    def before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = dict(zip(("query", "source"), args, strict=False)) | kwargs
        self.query = given["query"]
        source = given.get("source")
        self.sources = (self.query if source is None else source).keep.shape[1]
        self.count = len(self.looks)

    def after(self, *_: Any) -> None:
        if len(self.looks) == self.count:
            raise ValueError(f"observe: {self.site!r} is a {type(self.op).__name__} that {UNSEEN}")

    @torch.compiler.disable
    def attend(self, q: Tensor, k: Any, v: Any, **how: Any) -> Any:
        read = type(self.op).attend(self.op, q, k, v, **how)
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            self.looks.append(self.look(q, k, v, how))
        return read

    def look(self, q: Tensor, k: Any, v: Any, how: dict[str, Any]) -> Look:
        own: Callable[..., Tensor] | None = getattr(self.op, "row_weights", None)
        (b, n), h = self.query.keep.shape, self.op.heads
        if q.shape[1] == 1 and q.shape[2] == h * n:
            q = rearrange(q, "b 1 (h n) d -> b h n d", h=h)
        s = sum(part.shape[2] for part in k) if isinstance(k, tuple) else k.shape[2]
        if q.shape[:3] != (b, h, n) or (own is None and s != self.sources):
            raise ValueError(f"observe: {self.site!r} is a {type(self.op).__name__} that {UNSEEN}")
        real = self.query.keep

        def weights(start: int, stop: int) -> Tensor:
            """Padding looks nowhere."""
            rows: Callable[..., Tensor] = own or exact_weights
            return rows(q, k, start, stop, **how) * real[:, None, start:stop, None]

        groups = _groups(self.site, self.ask.groups, b, s)
        by_kernel = self.ask.want & IN_ONE_PASS if own is None else frozenset()
        found = summarise(weights, (b, h, n, s), self.ask.want - by_kernel, groups=groups)
        if by_kernel:
            read = attend(q, k, v, **_without_padding(how, real, s), want=by_kernel)
            found |= {name: getattr(read, name) for name in by_kernel}
        if self.ask.rows is not None:
            outside = [row for row in self.ask.rows if not 0 <= row < n]
            if outside:
                raise ValueError(f"observe: {self.site!r} has query tokens 0..{n - 1}; rows asks for {outside}")
            found["rows"] = torch.cat([weights(row, row + 1) for row in self.ask.rows], dim=2)
        return found


def _without_padding(how: dict[str, Any], real: Bool[Tensor, "b n"], s: int) -> dict[str, Any]:
    """The same call, with padding queries in a segment that has no keys."""
    if bool(real.all()):
        return how
    own, theirs = how.get("segments") or (torch.zeros_like(real, dtype=torch.long), real.new_zeros(len(real), s).long())
    nowhere = theirs.min() - 1 if theirs.numel() else theirs.new_tensor(-1)
    return how | {"segments": (torch.where(real, own, nowhere), theirs)}


def _groups(site: str, groups: Tensor | None, b: int, s: int) -> Tensor | None:
    if groups is None:
        return None
    if groups.shape not in ((s,), (b, s)):
        raise ValueError(
            f"observe: groups for {site!r} is {tuple(groups.shape)}; its source has {s} tokens in a batch of {b}, "
            f"expected ({s},) or ({b}, {s})"
        )
    return groups.expand(b, s)


@contextmanager
def observe(model: nn.Module, asks: Mapping[str, Ask | Collection[str]], *, grad: bool = False) -> Iterator[Seen]:
    """Record what the named sites look at, one entry per read, until the context closes.

    Args:
        model: any module with readers inside
        asks: by site or pattern of sites ("*", "genes <- *"): names from `QUANTITIES`, or an `Ask`
        grad: whether gradients flow through what is observed (for losses on attention)

    Raises:
        ValueError: an unknown site or quantity, with the nearest names there are
    """
    seen: Seen = {}
    with ExitStack() as stack:
        for site, (op, ask) in _asked(model, asks).items():
            if "attend" in vars(op):
                raise ValueError(f"observe: {site!r} is being observed already; ask for everything in one observe")
            seen[site] = []
            watch = _Watch(op, site, ask, grad, seen[site])
            op.attend = watch.attend  # type: ignore[method-assign]
            stack.callback(delattr, op, "attend")
            stack.enter_context(op.register_forward_pre_hook(watch.before, with_kwargs=True))
            stack.enter_context(op.register_forward_hook(watch.after))
        yield seen
