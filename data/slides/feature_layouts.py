"""Feature files in the layouts of TRIDENT and CLAM: equal features give equal bytes, wherever and whenever written."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from jaxtyping import Float, Int

from data.slides.grid import Grid
from data.slides.levels import Level
from data.slides.locks import write_whole

Layout = Literal["trident", "clam"]


@dataclass(frozen=True)
class SlideFeatures:
    """What is written for one slide.

    Attributes:
        slide_id: identifier
        grid: geometry of the patches
        level: the pyramid level they were read from
        coords: upper left corners at level 0, `[p, 2]`
        features: `[p, c]`
        encoder: name of the encoder
        resolution_source: where the slide's microns-per-pixel came from
    """

    slide_id: str
    grid: Grid
    level: Level
    coords: Int[np.ndarray, "p 2"]
    features: Float[np.ndarray, "p c"]
    encoder: str
    resolution_source: str


def grid_folder(mpp: float, patch: int, overlap: int) -> str:
    """TRIDENT's name of a grid, `20x_256px_0px_overlap`: magnification is 10 / mpp."""
    return f"{10.0 / mpp:g}x_{patch}px_{overlap}px_overlap"


def write_features(folder: Path, made: SlideFeatures, layout: Layout) -> list[Path]:
    """Write one slide, each file whole or not at all.

    TRIDENT: `{grid}/patches/SLIDE_patches.h5` and `{grid}/features_{encoder}/SLIDE.h5`. CLAM: `patches/SLIDE.h5`,
    `h5_files/SLIDE.h5` and `pt_files/SLIDE.pt`. Coordinates are level-0 pixels in every file.

    Returns:
        paths, the feature file last
    """
    if layout == "trident":
        base = folder / grid_folder(made.grid.mpp, made.grid.patch, made.grid.overlap)
        patches = base / "patches" / f"{made.slide_id}_patches.h5"
        features = base / f"features_{made.encoder}" / f"{made.slide_id}.h5"
        place = {"coords": (made.coords, trident_attributes(made, str(patches.parent.relative_to(folder))))}
        saved = {"name": made.slide_id, "savetodir": str(features.parent.relative_to(folder)), "encoder": made.encoder}
        write_whole(patches, h5_bytes(place))
        write_whole(features, h5_bytes({"features": (made.features, saved), **place}))
        return [patches, features]
    patches, features, tensor = (
        folder / "patches" / f"{made.slide_id}.h5",
        folder / "h5_files" / f"{made.slide_id}.h5",
        folder / "pt_files" / f"{made.slide_id}.pt",
    )
    write_whole(patches, h5_bytes({"coords": (made.coords, clam_attributes(made, "patches"))}))
    write_whole(features, h5_bytes({"features": (made.features, {}), "coords": (made.coords, {})}))
    write_whole(tensor, tensor_bytes(made.features))
    return [patches, features, tensor]


def trident_attributes(made: SlideFeatures, folder: str) -> dict[str, Any]:
    """Attributes of TRIDENT's `coords`, and after them the ones that leave no question open."""
    grid = made.grid
    return {
        "patch_size": grid.patch,
        "patch_size_level0": grid.size0,
        "level0_magnification": _plain(grid.level0_magnification),
        "target_magnification": _plain(grid.magnification),
        "overlap": grid.overlap,
        "name": made.slide_id,
        "savetodir": folder,
        "level0_width": grid.width,
        "level0_height": grid.height,
        **_geometry(made),
    }


def clam_attributes(made: SlideFeatures, folder: str) -> dict[str, Any]:
    """Attributes of CLAM's `coords`. `patch_size` is in pixels of `patch_level`, as CLAM has it."""
    grid, level = made.grid, made.level
    return {
        "patch_size": max(1, round(grid.size0 / level.down)),
        "patch_level": grid.level,
        "downsample": np.array([level.down_x, level.down_y]),
        "downsampled_level_dim": np.array([level.width, level.height]),
        "level_dim": np.array([grid.width, grid.height]),
        "name": made.slide_id,
        "save_path": folder,
        "custom_downsample": max(1, round(grid.ratio)),
        **_geometry(made),
    }


def _geometry(made: SlideFeatures) -> dict[str, Any]:
    return {
        "coordinates": "level-0 pixels, upper left corner",
        "step_level0": made.grid.step0,
        "read_level": made.grid.level,
        "encoder_patch_size": made.grid.patch,
        "target_mpp": made.grid.mpp,
        "effective_mpp": made.grid.effective_mpp,
        "level0_mpp": made.grid.slide_mpp,
        "level0_mpp_source": made.resolution_source,
    }


def _plain(magnification: float) -> int | float:
    """A whole magnification as an integer, as TRIDENT writes it; others keep four digits."""
    return round(magnification) if abs(magnification - round(magnification)) < 1e-6 else round(magnification, 4)


def h5_bytes(datasets: Mapping[str, tuple[np.ndarray, Mapping[str, Any]]]) -> bytes:
    """An h5 file of datasets with their attributes; no times inside, so equal content is equal bytes."""
    with h5py.File("features.h5", "w", driver="core", backing_store=False) as file:
        for name, (values, attributes) in datasets.items():
            width = values.shape[1]
            dataset = file.create_dataset(
                name, data=values, maxshape=(None, width), chunks=(32, width), track_times=False
            )
            for key, value in attributes.items():
                dataset.attrs[key] = value
            # Otherwise its chunks find their place when Python lets go of the dataset, which a profiler can put off.
            file.flush()
        return bytes(file.id.get_file_image())


def tensor_bytes(features: Float[np.ndarray, "p c"]) -> bytes:
    """A `.pt` file with the bare tensor, as CLAM writes it."""
    import torch

    buffer = io.BytesIO()
    torch.save(torch.from_numpy(features), buffer)
    return buffer.getvalue()
