"""Patch features of slides -> tokens, with the place of each patch on its grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fusion.dropout import Dropout
from fusion.tokens import Place, Tokens

GAP = 3
"""Empty columns between two slides of a patient: the reach of a 7 x 7 convolution, so that none sees both."""


class PatchTokens(nn.Module):
    """One token per patch: (linear, ReLU, dropout) for each of `widths`.

    Args:
        patch_width: channels of a patch feature
        widths: width after each layer; the last is the token width
        dropout: probability of dropping an activation after each layer
        placed: give each token its cell on the slide's grid (`place.grid`) and its rank in an order that does not
            depend on the file (`place.position`)
    """

    def __init__(
        self, patch_width: int, widths: Sequence[int] = (256, 256), dropout: float = 0.25, placed: bool = False
    ):
        super().__init__()
        if not widths:
            raise ValueError("PatchTokens: widths is empty; expected at least the token width")
        self.patch_width, self.placed = patch_width, placed
        layers: list[nn.Module] = []
        for width, out in zip([patch_width, *widths[:-1]], widths, strict=True):
            layers += [nn.Linear(width, out), nn.ReLU(), Dropout(dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(
        self,
        patches: Float[Tensor, "b p c"],
        keep: Bool[Tensor, "b p"],
        grid: Float[Tensor, "b p 2"] | None = None,
        slide: Int[Tensor, "b p"] | None = None,
    ) -> Tokens:
        """Tokens of the real patches; what stands in the padding reaches nothing.

        Args:
            patches: features
            keep: True = a real patch
            grid: coordinates in level-0 pixels
            slide: which of the patient's slides a patch is from; None = they are all from one
        """
        if patches.shape[1] and patches.shape[2] != self.patch_width:
            raise ValueError(
                f"PatchTokens: patch features are {patches.shape[2]} wide; this model was built for {self.patch_width}"
            )
        if not bool(keep.all()):
            patches = patches.masked_fill(~keep[..., None], 0.0)
        if patches.shape[1] == 0:
            patches = patches.new_zeros(patches.shape[0], 0, self.patch_width)
        return Tokens(self.layers(patches), keep, self._place(patches, keep, grid, slide) if self.placed else Place())

    def _place(
        self,
        patches: Float[Tensor, "b p c"],
        keep: Bool[Tensor, "b p"],
        grid: Float[Tensor, "b p 2"] | None,
        slide: Int[Tensor, "b p"] | None,
    ) -> Place:
        cells = None if grid is None else grid_cells(grid, keep, slide)
        order = reading_order(patches, keep, cells)
        return Place(position=order, grid=None if cells is None else cells.to(patches.dtype))


def grid_cells(
    grid: Float[Tensor, "b p 2"],
    keep: Bool[Tensor, "b p"],
    slide: Int[Tensor, "b p"] | None = None,
    crowding: int = 16,
) -> Int[Tensor, "b p 2"]:
    """Column and row of each patch on its slide's grid, from coordinates in any unit.

    The grid step is the median distance between neighbours in a row or column of patches. Cells start at 0 in each
    patient; several slides of a patient lie side by side, `GAP` empty columns apart. A grid with more than `crowding`
    cells per patch (and more than 4,096) is coarsened by doubling its step: memory stays bounded for stray coordinates.

    Args:
        grid: coordinates, padding may hold anything
        keep: True = a real patch
        slide: which of the patient's slides a patch is from; None = they are all from one
        crowding: cells per patch that are tolerated
    """
    cells = torch.zeros(grid.shape, dtype=torch.long, device=grid.device)
    for patient in range(grid.shape[0]):
        column = 0
        real = keep[patient]
        numbers = torch.zeros_like(real, dtype=torch.long) if slide is None else slide[patient]
        for number in numbers[real].unique().tolist():
            own = real & (numbers == number)
            cell = _cells_of_slide(grid[patient, own].double(), crowding)
            cell[:, 0] += column
            cells[patient, own] = cell
            column = int(cell[:, 0].amax()) + 1 + GAP
    return cells


def _cells_of_slide(at: Float[Tensor, "p 2"], crowding: int) -> Int[Tensor, "p 2"]:
    at = at - at.amin(dim=0)
    step = neighbour_distance(at)
    cell = (at / step).round().long()
    while int((cell.amax(dim=0) + 1).prod()) > max(crowding * len(cell), 4096):
        step = step * 2
        cell = (at / step).round().long()
    return cell


def neighbour_distance(at: Float[Tensor, "p 2"]) -> float:
    """Median distance between patches that follow one another in a row or a column; 1 when there are none."""
    gaps = []
    for along, across in ((0, 1), (1, 0)):
        order = torch.argsort(at[:, along], stable=True)
        order = order[torch.argsort(at[order, across], stable=True)]
        line = at[order]
        gap = (line[1:, along] - line[:-1, along])[line[1:, across] == line[:-1, across]]
        gaps.append(gap[gap > 0])
    found = torch.cat(gaps)
    return float(found.median()) if len(found) else 1.0


def reading_order(
    tokens: Float[Tensor, "b p c"], keep: Bool[Tensor, "b p"], cells: Int[Tensor, "b p 2"] | None
) -> Int[Tensor, "b p"]:
    """Rank of each patch in an order that does not depend on the file: along a Z-curve over the slide.

    Without cells, patches are ranked by the mean of their features, so that a run of ranks holds similar patches.
    Patches of the same cell are ranked by that mean too; padding comes last.

    Args:
        tokens: patch features as they were read
        keep: True = a real patch
        cells: column and row on the grid, at least 0
    """
    if cells is None:
        order = torch.argsort(_content(tokens, keep), dim=1, stable=True)
    else:
        curve = z_curve(cells).masked_fill(~keep, torch.iinfo(torch.long).max)
        line, order = torch.sort(curve, dim=1, stable=True)
        if bool(((line[:, 1:] == line[:, :-1]) & keep.gather(1, order)[:, 1:]).any()):
            order = torch.argsort(_content(tokens, keep), dim=1, stable=True)
            order = order.gather(1, torch.argsort(curve.gather(1, order), dim=1, stable=True))
    steps = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, steps)


def _content(tokens: Float[Tensor, "b p c"], keep: Bool[Tensor, "b p"]) -> Float[Tensor, "b p"]:
    return tokens.mean(dim=2).masked_fill(~keep, torch.inf)


def z_curve(cells: Int[Tensor, "b p 2"]) -> Int[Tensor, "b p"]:
    """Position along Morton's curve: the bits of column and row, interleaved (16 bits each)."""
    code = torch.zeros(cells.shape[:2], dtype=torch.long, device=cells.device)
    for bit in range(16):
        code |= ((cells[..., 0] >> bit) & 1) << (2 * bit)
        code |= ((cells[..., 1] >> bit) & 1) << (2 * bit + 1)
    return code
