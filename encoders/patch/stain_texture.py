"""Stain statistics and texture descriptors: features without weights, the floor every learnt encoder must beat."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from skimage.color import hed_from_rgb
from skimage.feature import graycomatrix, local_binary_pattern

from encoders.patch.base import Features, PatchEncoder, Patches

STAINS = ("haematoxylin", "eosin", "residual")
COLOURS = ("red", "green", "blue")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")
DISTANCES = (1, 2)  # pixels of the patch averaged 4 x 4
ANGLES = (0.0, np.pi / 2)
LEVELS = 16
BINS = 8
SCALES = (2, 4, 8, 16)
SMALLEST = 32
# Optical density that saturates the 256 steps of a stain's histogram; dense nuclei at 20x reach about 0.25.
FULL_SCALE = 0.32

GLASS = 220
STEPS = np.arange(256) / 255
ROW, COLUMN = (axis.ravel() for axis in np.mgrid[:LEVELS, :LEVELS])
APART = abs(ROW - COLUMN)
PAIR_WEIGHTS = np.stack([APART**2, APART, 1 / (1 + APART**2), ROW, ROW**2, ROW * COLUMN])
HED = hed_from_rgb.astype(np.float32)


class StainTexture(PatchEncoder):
    """Describe a patch by its stains and their texture, deterministically and without weights.

    All of it on the patch at half its resolution (mean of 2 x 2), where nuclei are still several pixels wide.

    Per stain (haematoxylin, eosin, residual): mean, deviation, skewness and quantiles of its density. For haematoxylin
    and eosin: histogram, grey-level co-occurrence at two distances (mean over two directions), deviation left after
    averaging over 2 to 16 pixels. Local binary patterns of haematoxylin averaged over 8 pixels. Means and deviations of
    the colours, share of glass, correlation of the two stains.
    """

    def __init__(self) -> None:
        self.name = "staintexture"
        self.names = _names()
        self.width = len(self.names)
        self._density = stain_density()

    def __call__(self, pixels: Patches) -> Features:
        if pixels.shape[1] < SMALLEST or pixels.shape[2] < SMALLEST:
            raise ValueError(
                f"patches of {pixels.shape[2]} x {pixels.shape[1]} px: StainTexture needs at least {SMALLEST} px a side"
            )
        out = np.empty((len(pixels), self.width), np.float32)
        for row, patch in zip(out, pixels, strict=True):
            row[:] = self._describe(Image.fromarray(patch).reduce(2))
        return out

    def density(self, colours: UInt8[np.ndarray, "3 y x"]) -> Float32[np.ndarray, "3 y x"]:
        """Optical density of each colour."""
        return np.take(self._density, colours, mode="clip")

    def _describe(self, patch: Image.Image) -> list[float]:
        colours = np.ascontiguousarray(np.asarray(patch).transpose(2, 0, 1))
        stains = unmix(self.density(colours))
        shares = np.concatenate([_histograms(_steps(stains[:, ::2, ::2])), np.reshape(patch.histogram(), (3, 256))])
        shares /= shares.sum(axis=1, keepdims=True)
        moments = _moments(shares)
        pair = stains[:2]
        deviations = []
        for _ in SCALES:
            deviations.append(pair.std(axis=(1, 2)))
            pair = _halved(pair)
        quarter = _halved(stains[:2])
        patterns = local_binary_pattern(_steps(_halved(quarter[:1]))[0], 8, 1, "uniform").astype(np.uint8)
        found = [
            moments[:3],
            shares[:2].reshape(2, BINS, -1).sum(2),
            np.stack([_co_occurrence(plane) for plane in _steps(quarter, LEVELS)]),
            np.stack(deviations, axis=1),
            np.bincount(patterns.ravel(), minlength=10) / patterns.size,
            moments[3:, :2],
            np.array([(np.minimum(np.minimum(colours[0], colours[1]), colours[2]) > GLASS).mean()]),
            np.array([_correlation(stains[0], stains[1])]),
        ]
        return [float(value) for part in found for value in part.ravel()]


def unmix(density: Float32[np.ndarray, "3 y x"]) -> Float32[np.ndarray, "3 y x"]:
    """Stains from the densities of the colours, not below 0: Ruifrok and Johnston, as in `skimage.color.rgb2hed`."""
    red, green, blue = density
    mixed = np.stack([HED[0, s] * red + HED[1, s] * green + HED[2, s] * blue for s in range(3)])
    return np.maximum(mixed, 0, out=mixed)


def stain_density() -> Float32[np.ndarray, " 256"]:
    """Optical density of each intensity, on scikit-image's scale of 0 (white) to 1 (intensity 1e-6)."""
    return (np.log(np.maximum(np.arange(256) / 255, 1e-6)) / np.log(1e-6)).astype(np.float32)


def _names() -> list[str]:
    names = [f"{s} {what}" for s in STAINS for what in ("mean", "deviation", "skewness", *(f"q{q}" for q in QUANTILES))]
    names += [f"{stain} histogram {b}" for stain in STAINS[:2] for b in range(BINS)]
    names += [f"{stain} {p} at {4 * d}" for stain in STAINS[:2] for p in PROPERTIES for d in DISTANCES]
    names += [f"{stain} deviation over {scale}" for stain in STAINS[:2] for scale in SCALES]
    names += [f"haematoxylin pattern {k}" for k in range(10)]
    names += [f"{colour} {what}" for colour in COLOURS for what in ("mean", "deviation")]
    return [*names, "glass", "haematoxylin with eosin"]


def _histograms(planes: UInt8[np.ndarray, "n y x"]) -> Float[np.ndarray, "n 256"]:
    """Counts of each step of each plane, in one pass."""
    first = np.arange(len(planes))[:, None, None] * 256
    return np.bincount((planes + first).ravel(), minlength=256 * len(planes)).reshape(-1, 256).astype(float)


def _moments(shares: Float[np.ndarray, "n 256"]) -> Float[np.ndarray, "n 8"]:
    """Mean, deviation, skewness and five quantiles of 256-step histograms, on a scale of 0 to 1."""
    mean = shares @ STEPS
    from_mean = STEPS - mean[:, None]
    deviation = np.sqrt((shares * from_mean**2).sum(1))
    # Below one step of the histogram the third moment is rounding.
    spread = np.maximum(deviation, 1 / 255)
    skewness = np.where(deviation > 1 / 255, (shares * from_mean**3).sum(1) / spread**3, 0.0)
    reached = shares.cumsum(1)[:, :, None] >= np.array(QUANTILES) - 1e-12
    return np.concatenate([np.stack([mean, deviation, skewness], axis=1), reached.argmax(axis=1) / 255], axis=1)


def _halved(planes: Float32[np.ndarray, "n y x"]) -> Float32[np.ndarray, "n i j"]:
    """Means of 2 x 2 pixels; an odd last row or column is left out."""
    rows, columns = (n // 2 * 2 for n in planes.shape[1:])
    pairs = planes[:, 0:rows:2, :columns] + planes[:, 1:rows:2, :columns]
    return (pairs[:, :, ::2] + pairs[:, :, 1::2]) * np.float32(0.25)


def _steps(planes: Float32[np.ndarray, "n y x"], levels: int = 256) -> UInt8[np.ndarray, "n y x"]:
    return np.minimum(planes * np.float32(levels / FULL_SCALE), np.float32(levels - 1)).astype(np.uint8)


def _co_occurrence(plane: UInt8[np.ndarray, "y x"]) -> Float[np.ndarray, " n"]:
    """Haralick properties at each distance, mean over the directions; as `skimage.feature.graycoprops`, all at once."""
    matrix = graycomatrix(plane, DISTANCES, ANGLES, LEVELS, symmetric=True, normed=True)
    share = matrix.reshape(LEVELS * LEVELS, -1)
    contrast, dissimilarity, homogeneity, mean, square, product = PAIR_WEIGHTS @ share
    energy = np.sqrt((share**2).sum(0))
    variance, covariance = square - mean**2, product - mean**2
    flat = variance < 1e-12
    correlation = np.where(flat, 1.0, covariance / np.where(flat, 1.0, variance))
    found = np.stack([contrast, dissimilarity, homogeneity, energy, correlation])
    return found.reshape(len(PROPERTIES), len(DISTANCES), len(ANGLES)).mean(axis=2).ravel()


def _correlation(a: Float32[np.ndarray, "y x"], b: Float32[np.ndarray, "y x"]) -> float:
    x, y = a.ravel() - a.mean(), b.ravel() - b.mean()
    norm = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / norm if norm > 1e-9 else 0.0
