"""Encoders: definitions, order of the file, cells of a slide, padding, errors."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from encoders.covariates import CovariateTokens
from encoders.genes import GroupTokens
from encoders.slide import PatchTokens, grid_cells, reading_order, z_curve

GROUPS = {"a": 5, "b": 1, "c": 9}


def genes(rng: torch.Generator, b: int = 4) -> dict[str, torch.Tensor]:
    return {name: torch.randn(b, size, generator=rng) for name, size in GROUPS.items()}


def test_each_group_has_its_own_network(rng: torch.Generator):
    encoder = GroupTokens(GROUPS, (8, 6), dropout=0.0)
    values, present = genes(rng), torch.ones(4, dtype=torch.bool)
    tokens = encoder(values, present)
    for i, (x, weight) in enumerate(
        zip(values.values(), encoder.first.weight.split(list(GROUPS.values())), strict=True)
    ):
        hidden = F.elu(x @ weight + encoder.first.bias[i])
        expected = F.elu(hidden @ encoder.layers[0].weight[i] + encoder.layers[0].bias[i])
        torch.testing.assert_close(tokens.x[:, i], expected)


def test_permuting_genes_with_their_weights_changes_nothing(rng: torch.Generator):
    encoder, values = GroupTokens(GROUPS, (8,), dropout=0.0), genes(rng)
    present = torch.ones(4, dtype=torch.bool)
    before = encoder(values, present).x
    order = torch.randperm(5, generator=rng)
    with torch.no_grad():
        encoder.first.weight[:5] = encoder.first.weight[:5][order]
    torch.testing.assert_close(encoder(values | {"a": values["a"][:, order]}, present).x, before)


def test_absent_genes_reach_nothing(rng: torch.Generator):
    encoder, values = GroupTokens(GROUPS, (8, 6)), genes(rng)
    values["a"][1] = float("nan")
    tokens = encoder.eval()(values, torch.tensor([True, False, True, True]))
    assert torch.isfinite(tokens.x).all()
    assert tokens.present.tolist() == [True, False, True, True]


def test_self_normalising_layers_keep_the_variance(rng: torch.Generator):
    encoder = GroupTokens({"all": 400}, (256, 256, 256, 256), dropout=0.0)
    with torch.no_grad():
        encoder.first.weight.normal_(std=400**-0.5, generator=rng)
        for layer in encoder.layers:
            layer.weight.normal_(std=256**-0.5, generator=rng)
    x = encoder({"all": torch.randn(200, 400, generator=rng)}, torch.ones(200, dtype=torch.bool)).x
    assert 0.1 < float(x.detach().square().mean()) < 1.5


def test_wrong_groups_are_named(rng: torch.Generator):
    present = torch.ones(4, dtype=torch.bool)
    with pytest.raises(ValueError, match="gene group 'x' has no genes; drop it"):
        GroupTokens({"x": 0})
    with pytest.raises(ValueError, match="no gene groups; expected at least one"):
        GroupTokens({})
    with pytest.raises(ValueError, match=r"the batch has gene groups \['a', 'b'\], this model was built for"):
        GroupTokens(GROUPS)({k: v for k, v in genes(rng).items() if k != "c"}, present)
    with pytest.raises(ValueError, match="group 'a' has 4 genes; expected 5"):
        GroupTokens(GROUPS)(genes(rng) | {"a": torch.zeros(4, 4)}, present)


def test_patch_tokens_are_made_one_by_one_whatever_stands_in_the_padding(rng: torch.Generator):
    encoder = PatchTokens(7, (6, 4)).eval()
    x, keep = torch.randn(2, 5, 7, generator=rng), torch.tensor([[True] * 5, [True, True, False, False, False]])
    spoilt = x.masked_fill(~keep[..., None], float("nan"))
    torch.testing.assert_close(encoder(spoilt, keep).x[keep], encoder.layers(x[keep]))
    assert torch.isfinite(encoder(spoilt, keep).x).all()
    assert encoder(torch.zeros(3, 0, 1), torch.zeros(3, 0, dtype=torch.bool)).x.shape == (3, 0, 4)
    with pytest.raises(ValueError, match="patch features are 7 wide; this model was built for 8"):
        PatchTokens(8)(x, keep)


def test_cells_are_read_off_coordinates_in_any_unit_and_origin(rng: torch.Generator):
    cells = torch.tensor([[0, 0], [1, 0], [2, 0], [0, 1], [2, 1], [5, 3]])
    for step, origin in ((512.0, 1000.0), (0.25, -3.0)):
        grid = (cells * step + origin)[None].float()
        order = torch.randperm(6, generator=rng)
        keep = torch.ones(1, 6, dtype=torch.bool)
        assert (grid_cells(grid[:, order], keep)[0] == cells[order]).all()


def test_padding_and_single_patches_have_cell_zero():
    grid = torch.full((2, 3, 2), float("nan"))
    grid[0, 0] = 700.0
    keep = torch.zeros(2, 3, dtype=torch.bool)
    keep[0, 0] = True
    assert (grid_cells(grid, keep) == 0).all()


def test_slides_of_one_patient_lie_apart_each_on_its_own_grid(rng: torch.Generator):
    corner = 256.0 * torch.cartesian_prod(torch.arange(5), torch.arange(4)).float()
    grid = torch.cat([corner, corner + 1e5, 2 * corner])[None]
    slide = torch.arange(3).repeat_interleave(20)[None]
    keep = torch.ones(1, 60, dtype=torch.bool)
    cells = grid_cells(grid, keep, slide)[0]
    alone = grid_cells(corner[None], keep[:, :20])[0]
    for number in range(3):
        own = cells[slide[0] == number]
        assert (own - own.amin(dim=0) == alone).all(), "a slide's own cells do not depend on the other slides"
    columns = [cells[slide[0] == number, 0] for number in range(3)]
    assert all(left.amax() + 4 == right.amin() for left, right in itertools.pairwise(columns))
    assert (grid_cells(grid[:, :20], keep[:, :20], slide[:, :20]) == alone).all()


def test_stray_coordinates_do_not_blow_up_the_grid(rng: torch.Generator):
    grid = torch.rand(1, 300, 2, generator=rng) * 1e6
    cells = grid_cells(grid, torch.ones(1, 300, dtype=torch.bool))[0]
    assert int((cells.amax(0) + 1).prod()) <= max(16 * 300, 4096)


@pytest.mark.parametrize("placed", [True, False])
def test_reading_order_does_not_depend_on_the_file(placed: bool, rng: torch.Generator):
    x = torch.randn(1, 40, 6, generator=rng)
    keep = torch.arange(40)[None] < 33
    cells = torch.randint(0, 5, (1, 40, 2), generator=rng) if placed else None
    order = torch.randperm(40, generator=rng)
    base = reading_order(x, keep, cells)
    other = reading_order(x[:, order], keep[:, order], None if cells is None else cells[:, order])
    assert (other[keep[:, order]] == base[:, order][keep[:, order]]).all()
    assert sorted(base[keep].tolist()) == list(range(33))


def test_the_z_curve_visits_quadrants_one_after_another():
    cells = torch.tensor([[[0, 0], [1, 0], [0, 1], [1, 1], [2, 0], [0, 2]]])
    assert z_curve(cells).tolist() == [[0, 1, 2, 3, 4, 8]]


def test_covariate_tokens_are_linear_in_their_value():
    encoder = CovariateTokens(["age", "sex"], 4)
    x = torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    tokens = encoder(x)
    torch.testing.assert_close(tokens.x[0, 0], encoder.place[0])
    torch.testing.assert_close(tokens.x[1, 0], encoder.place[0] + 2 * encoder.direction[0])
    assert tokens.keep.all()
    with pytest.raises(ValueError, match="the batch has 1 covariates; expected 2: age, sex"):
        encoder(x[:, :1])
    with pytest.raises(ValueError, match="no covariates; expected at least one name"):
        CovariateTokens([])
