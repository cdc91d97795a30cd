"""Outlines of a mask and GeoJSON that QuPath opens; every coordinate is a level-0 pixel."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage.measure import find_contours

Ring = Float[np.ndarray, "n 2"]
Polygon = list[Ring]


def outlines(mask: Bool[np.ndarray, "i j"], down_x: float, down_y: float) -> list[Polygon]:
    """Polygons of the connected pieces of a mask, each an outer ring followed by its holes.

    Args:
        mask: True inside
        down_x, down_y: level-0 pixels per mask pixel

    Returns:
        rings of (x, y) at level 0, closed (first point = last)
    """
    labels, _ = ndimage.label(mask)
    polygons = []
    for index, window in enumerate(ndimage.find_objects(labels), start=1):
        piece = labels[window] == index
        filled = ndimage.binary_fill_holes(piece)
        holes, count = ndimage.label(filled & ~piece, structure=np.ones((3, 3)))
        rings = [*_rings(filled), *(ring for hole in range(1, count + 1) for ring in _rings(holes == hole))]
        corner = np.array([window[1].start, window[0].start])
        polygons.append([(ring + corner) * (down_x, down_y) for ring in rings])
    return polygons


def _rings(mask: Bool[np.ndarray, "i j"]) -> list[Ring]:
    """Contours in pixel-edge coordinates (x, y): the first pixel spans 0 to 1."""
    found = find_contours(np.pad(mask, 1).astype(np.uint8), 0.5, fully_connected="low")
    return [ring[:, ::-1] - 0.5 for ring in found]


def tissue_geojson(polygons: Sequence[Polygon]) -> str:
    """A FeatureCollection with one annotation per piece of tissue."""
    return _collection(
        _feature([_points(ring) for ring in polygon], "annotation", "Tissue", (60, 160, 60)) for polygon in polygons
    )


def patch_geojson(
    coords: Sequence[tuple[int, int]],
    size0: int,
    values: Sequence[float],
    name: str,
    colors: Sequence[tuple[int, int, int]],
) -> str:
    """Patches as QuPath detections carrying a measurement, e.g. attention.

    Args:
        coords: upper left corners at level 0
        size0: side at level 0
        values: one number per patch
        name: what the numbers are
        colors: red, green, blue (0 to 255) per patch
    """
    features = []
    for (x, y), value, color in zip(coords, values, colors, strict=True):
        square = [[x, y], [x + size0, y], [x + size0, y + size0], [x, y + size0], [x, y]]
        feature = _feature([[[int(a), int(b)] for a, b in square]], "detection", name, color)
        feature["properties"]["measurements"] = {name: float(value)}
        features.append(feature)
    return _collection(features)


def _points(ring: Ring) -> list[list[float]]:
    return [[round(float(x), 1), round(float(y), 1)] for x, y in ring]


def _feature(rings: list[Any], kind: str, name: str, color: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {"objectType": kind, "classification": {"name": name, "color": [int(part) for part in color]}},
    }


def _collection(features: Iterable[dict[str, Any]]) -> str:
    return json.dumps({"type": "FeatureCollection", "features": list(features)}, separators=(",", ":"))
