"""Who looked where: exact, by site, without changing anything and without a map."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fusion.weights
from fusion.attention import AttentionOp
from fusion.observe import QUANTITIES, Ask, observe, sites
from fusion.operators import (
    Causal,
    CoAttention,
    Conditional,
    Dense,
    JointSoftmax,
    Nystrom,
    Phrase,
    Relative,
    WithinPhrase,
    ZeroPaddedNystrom,
)
from fusion.tokens import Place, Tokens
from fusion.weights import exact_weights, summarise
from kernels.timing import usage

B, N, S, W, H = 2, 6, 10, 16, 2


def some_tokens(rng: torch.Generator, n: int) -> Tokens:
    keep = torch.ones(B, n, dtype=torch.bool)
    keep[1, -2:] = False
    place = Place(segment=(torch.arange(n) // 3).expand(B, n))
    return Tokens(torch.randn(B, n, W, generator=rng, dtype=torch.float64), keep, place)


def by_the_book(op: Dense, query: Tokens, source: Tokens) -> Tensor:
    """The attention map of plain cross attention."""
    q = op.to_query(query.x).unflatten(-1, (H, -1))
    k = op.to_source(source.x).unflatten(-1, (2, H, -1))[:, :, 0]
    scores = torch.einsum("bnhd,bshd->bhns", q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(~source.keep[:, None, None], float("-inf")).softmax(-1)


class Pair(nn.Module):
    """Two named readers, one inside the other's block, and one nobody named."""

    def __init__(self) -> None:
        super().__init__()
        self.genes = Dense(W, H)
        self.genes.site = "genes <- slide"
        self.melody = Phrase(W, H, phrases=4)
        self.melody.site = "melody <- skeleton"
        self.last = nn.Sequential(Dense(W, H))

    def forward(self, query: Tokens, source: Tokens) -> Tensor:
        read = query.with_x(self.genes(query, source).y)
        read = read.with_x(self.melody(read, source).y)
        return self.last(read).y


@pytest.fixture
def model() -> Pair:
    torch.manual_seed(0)
    return Pair().double()


def test_sites_are_named_by_builder_by_owner_or_by_path(model: Pair):
    assert list(sites(model)) == [
        "genes <- slide",
        "melody <- skeleton/micro",
        "melody <- skeleton/summary",
        "melody <- skeleton/macro",
        "last.0",
    ]


def test_a_site_that_two_readers_share_gives_way_to_their_paths():
    twins = nn.ModuleDict({"left": Dense(W, H), "right": Dense(W, H)})
    for reader in twins.values():
        reader.site = "genes <- slide"
    assert list(sites(twins)) == ["left", "right"]


def test_every_quantity_is_that_of_the_map(model: Pair, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch):
    query, source = some_tokens(rng, N), some_tokens(rng, S)
    groups = torch.tensor([0, 0, 1, 1, 1, 2, -1, 2, 0, 1])
    weights = by_the_book(model.genes, query.zeroed(), source.zeroed()) * query.keep[:, None, :, None]
    for chunk in (1, 50, 1 << 22):
        monkeypatch.setattr(fusion.weights, "CHUNK", chunk)
        ask = Ask("mass", "entropy", "peak", "argmax", groups=groups, rows=[4, 0])
        with observe(model, {"genes <- slide": ask}) as seen:
            model(query, source)
        (look,) = seen["genes <- slide"]
        assert look.keys() == QUANTITIES.keys()
        torch.testing.assert_close(look["mass"], weights.sum(2))
        torch.testing.assert_close(look["entropy"], torch.special.entr(weights).sum(-1))
        torch.testing.assert_close(look["peak"], weights.amax(-1))
        assert torch.equal(look["argmax"], torch.where(weights.any(-1), weights.argmax(-1), -1))
        by_group = torch.stack([weights[..., groups == g].sum(-1) for g in range(3)], -1)
        torch.testing.assert_close(look["group_mass"], by_group)
        torch.testing.assert_close(look["rows"], weights[:, :, [4, 0]])


def test_observed_or_not_the_result_is_bitwise_the_same(model: Pair, rng: torch.Generator):
    query, source = some_tokens(rng, N), some_tokens(rng, S)
    before = model(query, source)
    with observe(model, {"*": ["mass", "entropy", "peak", "argmax"]}) as seen:
        during = model(query, source)
    after = model(query, source)
    assert torch.equal(during, before)
    assert torch.equal(after, before)
    assert all(len(looks) == 1 for looks in seen.values())


def test_nothing_is_left_behind_even_by_an_error(model: Pair, rng: torch.Generator):
    bare = {name: (list(vars(op)), len(op._forward_hooks), len(op._forward_pre_hooks)) for name, op in _ops(model)}
    with pytest.raises(ZeroDivisionError), observe(model, {"*": ["mass"]}):
        raise ZeroDivisionError
    assert bare == {
        name: (list(vars(op)), len(op._forward_hooks), len(op._forward_pre_hooks)) for name, op in _ops(model)
    }


def _ops(model: nn.Module) -> list[tuple[str, AttentionOp]]:
    return [(name, op) for name, op in model.named_modules() if isinstance(op, AttentionOp)]


def test_each_read_is_one_entry(model: Pair, rng: torch.Generator):
    query, source = some_tokens(rng, N), some_tokens(rng, S)
    with observe(model, {"genes*": ["peak"]}) as seen:
        model(query, source)
        model(query, source)
    assert list(seen) == ["genes <- slide"]
    assert len(seen["genes <- slide"]) == 2


def test_no_map_of_all_queries_and_sources_is_built(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fusion.weights, "CHUNK", 4096)
    n = 256
    q, k = (torch.randn(1, 2, n, 8, generator=rng) for _ in range(2))
    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            found = func(*args, **(kwargs or {}))
            largest = max([largest, *(t.numel() for t in tree_leaves(found) if isinstance(t, Tensor))])
            return found

    with Sizes():
        weights = partial(exact_weights, q, k, causal="bottom-right")
        summarise(weights, (1, 2, n, n), ["mass", "entropy", "peak", "argmax"])
    assert largest <= max(4096, q.numel())


def _observed(name: str, n: int):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    op = JointSoftmax(W, 1) if name == "joint" else Relative(W, 1, reach=8, relations={"time": 8})

    def look(n: int) -> object:
        place = Place(time=torch.arange(n)[None] / 3)
        query, source = (Tokens(torch.randn(1, n, W), torch.ones(1, n, dtype=torch.bool), place) for _ in range(2))
        with torch.no_grad(), observe(op, {type(op).__name__: ["mass", "entropy", "argmax"]}) as seen:
            op(query, source if name == "joint" else None)
        return seen

    look(64)  # loads libraries
    return partial(look, n)


@pytest.mark.parametrize("name", ["joint", "relative"])
def test_memory_grows_with_the_length_not_its_square(name: str):
    """Operators whose statistics come from chunks of rows: chunks leave nothing behind in the heap."""
    n = 8192
    one_map_mb = n * n * 4 / 2**20
    assert usage(_observed, name, n, threads=1).peak_mb < one_map_mb / 2


def test_mass_counts_real_queries_only_and_stays_off_padding(model: Pair, rng: torch.Generator):
    query, source = some_tokens(rng, N), some_tokens(rng, S)
    with observe(model, {"genes <- slide": ["mass"]}) as seen:
        model(query, source)
    mass = seen["genes <- slide"][0]["mass"]
    torch.testing.assert_close(mass.sum(-1), query.keep.sum(1)[:, None].expand(B, H).double())
    assert mass.masked_select(~source.keep[:, None]).eq(0).all()


def test_a_query_with_nothing_to_read_looks_nowhere(model: Pair, rng: torch.Generator):
    query, source = some_tokens(rng, N), some_tokens(rng, S)
    with observe(model, {"genes <- slide": ["mass", "entropy", "peak", "argmax"]}) as seen:
        model(query, replace(source, keep=torch.zeros_like(source.keep)))
    look = seen["genes <- slide"][0]
    assert all(look[name].eq(0).all() for name in ("mass", "entropy", "peak"))
    assert look["argmax"].eq(-1).all()


READERS = {
    "Dense": (Dense(W, H), True),
    "CoAttention": (CoAttention(W, 1), True),
    "Conditional": (Conditional(3, W, H), True),
    "Causal": (Causal(W, H), False),
    "Relative": (Relative(W, H, reach=4), False),
    "Relative local": (Relative(W, H, reach=4, block=2), False),
    "WithinPhrase": (WithinPhrase(W, H), True),
    "WithinPhrase with neighbours": (WithinPhrase(W, H, reach=1), True),
    "JointSoftmax": (JointSoftmax(W, H), True),
    "Nystrom, still exact": (Nystrom(W, H), True),
}


@pytest.mark.parametrize("name", READERS)
def test_observed_weights_are_the_ones_that_were_used(name: str, rng: torch.Generator):
    """The derivative of the joined values to one value column is the weight: an oracle that knows no mask."""
    op, cross = READERS[name]
    op = op.double()
    query, source = some_tokens(rng, N), some_tokens(rng, S) if cross else None
    kept: dict[str, Tensor] = {}
    used = type(op).attend

    def spy(self: Dense, q: Tensor, k: Tensor, v: Tensor, **how: object) -> object:
        v = tuple(x.detach().requires_grad_() for x in v) if isinstance(v, tuple) else v.detach().requires_grad_()
        read = used(self, q, k, v, **how)
        kept["out"], kept["v"] = read.out, v
        return read

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(op), "attend", spy)
        op(query, source)
    values = kept["v"] if isinstance(kept["v"], tuple) else (kept["v"],)
    out = kept["out"]
    out = out.reshape(B, op.heads, N, -1)
    weights = torch.empty(B, op.heads, N, sum(x.shape[2] for x in values), dtype=torch.float64)
    for h in range(op.heads):
        for i in range(N):
            parts = torch.autograd.grad(out[:, h, i, 0].sum(), values, retain_graph=True)
            weights[:, h, i] = torch.cat([g[:, h % g.shape[1], :, 0] for g in parts], -1)
    weights = weights * query.keep[:, None, :, None]
    with observe(op, {type(op).__name__: Ask("mass", "entropy", "peak", rows=range(N))}) as seen:
        op(query, source)
    (look,) = seen[type(op).__name__]
    torch.testing.assert_close(look["rows"], weights)
    torch.testing.assert_close(look["mass"], weights.sum(2))
    torch.testing.assert_close(look["peak"], weights.amax(-1))
    torch.testing.assert_close(look["entropy"], torch.special.entr(weights.clamp_min(0)).sum(-1))


@pytest.mark.parametrize("op", [Nystrom(W, H, landmarks=2, dense_up_to=2), ZeroPaddedNystrom(W, H)])
def test_a_way_without_a_map_says_so(op: AttentionOp, rng: torch.Generator):
    query = Tokens.full(torch.randn(B, N, W, generator=rng))
    with (
        pytest.raises(ValueError, match=r"took a way without softmax weights .* use an exact operator"),
        observe(op, {type(op).__name__: ["mass"]}),
    ):
        op(query)


def test_gradients_flow_through_what_is_observed_when_asked(model: Pair, rng: torch.Generator):
    query, source = some_tokens(rng, N), some_tokens(rng, S)
    with observe(model, {"genes <- slide": ["entropy"]}) as quiet:
        model(query, source)
    assert not quiet["genes <- slide"][0]["entropy"].requires_grad
    with observe(model, {"genes <- slide": ["entropy"]}, grad=True) as seen:
        model(query, source)
    seen["genes <- slide"][0]["entropy"].sum().backward()
    found = model.genes.to_query.weight.grad.clone()
    model.zero_grad()
    weights = by_the_book(model.genes, query.zeroed(), source.zeroed())
    entropy = -(weights * weights.clamp_min(1e-300).log()).sum(-1)
    entropy.masked_select(query.keep[:, None]).sum().backward()
    torch.testing.assert_close(found, model.genes.to_query.weight.grad)


def test_dropout_does_not_disturb_what_is_seen(rng: torch.Generator):
    query, source = some_tokens(rng, N), some_tokens(rng, S)
    op = Dense(W, H, dropout=0.5).double().train()
    with observe(op, {"Dense": Ask(rows=[0])}) as seen:
        op(query, source)
    want = by_the_book(op, query.zeroed(), source.zeroed())[:, :, :1]
    torch.testing.assert_close(seen["Dense"][0]["rows"], want)


@torch.no_grad()
def test_compiled_models_can_be_observed_and_released(rng: torch.Generator):
    op = Dense(W, H).double()
    query, source = some_tokens(rng, N), some_tokens(rng, S)
    torch._dynamo.reset()
    compiled = torch.compile(op, backend="eager")
    before = compiled(query, source).y
    with observe(op, {"Dense": ["mass"]}) as seen:
        torch.testing.assert_close(compiled(query, source).y, before)
    assert len(seen["Dense"]) == 1
    assert torch.equal(compiled(query, source).y, before)
    assert len(seen["Dense"]) == 1


@pytest.mark.parametrize(
    ("asks", "message"),
    [
        ({"genes <- slides": ["mass"]}, r"unknown site 'genes <- slides'; did you mean 'genes <- slide'"),
        ({"genes*": ["mas"]}, r"unknown quantity 'mas'; did you mean 'mass'"),
        ({"genes*": ["zzz"]}, r"unknown quantity 'zzz'; expected one of argmax, entropy"),
        ({"genes*": "mass"}, r"expected a list of names, \['mass'\]"),
        ({"genes*": []}, r"nothing was asked for"),
        ({"genes*": ["rows"]}, r"'rows' needs the query tokens to show"),
        ({"genes*": ["group_mass"]}, r"'group_mass' needs groups"),
        ({"genes*": ["mass"], "*": ["peak"]}, r"'genes <- slide' is asked for twice, the second time by '\*'"),
    ],
)
def test_a_wrong_request_names_the_nearest_right_one(model: Pair, asks: dict[str, list[str]], message: str):
    with pytest.raises(ValueError, match=message), observe(model, asks):
        pass


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (Ask(rows=[0, N]), r"query tokens 0\.\.5; rows asks for \[6\]"),
        (Ask(groups=torch.zeros(3, dtype=torch.long)), r"groups for 'genes <- slide' is \(3,\).*expected \(10,\)"),
    ],
)
def test_rows_and_groups_must_fit_what_is_read(model: Pair, ask: Ask, message: str, rng: torch.Generator):
    with pytest.raises(ValueError, match=message), observe(model, {"genes <- slide": ask}):
        model(some_tokens(rng, N), some_tokens(rng, S))


def test_a_site_is_observed_by_one_observer_at_a_time(model: Pair):
    with (
        observe(model, {"genes*": ["mass"]}),
        pytest.raises(ValueError, match="is being observed already"),
        observe(model, {"genes*": ["peak"]}),
    ):
        pass
