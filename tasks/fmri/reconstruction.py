"""How close reconstructed pictures are to what was shown: pixels, structure, and features of networks one brings along.

Pictures are `[n, h, w, 3]` in 0 to 1, reconstruction and original at the same size (published figures use 425 x 425).
Network features are judged the two ways of the literature: two-way identification among all originals (AlexNet,
Inception, CLIP; higher is better, chance .5) or correlation distance to the own original (EfficientNet, SwAV; lower).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from data.errors import DataError
from tasks.fmri.baselines import correlations
from tasks.fmri.metrics import two_way

Pictures = Float[np.ndarray, "_ _ _ 3"]


@dataclass(frozen=True)
class Network:
    """A network to judge with: pictures to features `[n, f]`, and how the features are compared."""

    features: Callable[[np.ndarray], np.ndarray]
    judged: Literal["two_way", "distance"] = "two_way"


def pix_corr(made: Pictures, shown: Pictures) -> Float[np.ndarray, " _"]:
    """Pearson r of all pixel values of each picture with those of its original; 0 for a constant picture."""
    _comparable(made, shown)
    return np.array([correlations(a.reshape(1, -1), b.reshape(1, -1))[0, 0] for a, b in zip(made, shown, strict=True)])


def ssim(made: Pictures, shown: Pictures) -> Float[np.ndarray, " _"]:
    """Structural similarity of the grey pictures (Wang et al. 2004: Gaussian window of 1.5 pixels)."""
    _comparable(made, shown)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return np.array(
        [structural_similarity(rgb2gray(a), rgb2gray(b), **options) for a, b in zip(made, shown, strict=True)]
    )


def feature_two_way(made: Float[np.ndarray, "n f"], shown: Float[np.ndarray, "n f"]) -> Float[np.ndarray, " n"]:
    """Share of other originals that correlate less with a reconstruction than its own does."""
    return two_way(correlations(made, shown), np.arange(len(made)))


def feature_distance(made: Float[np.ndarray, "n f"], shown: Float[np.ndarray, "n f"]) -> Float[np.ndarray, " n"]:
    """1 - Pearson r of the features of each reconstruction with those of its original."""
    return 1 - np.diagonal(correlations(made, shown))


def reconstruction_metrics(
    made: Pictures, shown: Pictures, networks: Mapping[str, Network] | None = None
) -> pd.DataFrame:
    """Every measure of every picture: columns PixCorr, SSIM and one per network, a row per picture."""
    table = {"PixCorr": pix_corr(made, shown), "SSIM": ssim(made, shown)}
    judges = {"two_way": feature_two_way, "distance": feature_distance}
    for name, network in (networks or {}).items():
        table[name] = judges[network.judged](network.features(made), network.features(shown))
    return pd.DataFrame(table)


def _comparable(made: np.ndarray, shown: np.ndarray) -> None:
    if made.shape != shown.shape:
        raise DataError(f"reconstructions {made.shape} for originals {shown.shape}; bring both to one size and number")
    if min(made.min(), shown.min()) < 0 or max(made.max(), shown.max()) > 1:
        raise DataError("pictures must hold values between 0 and 1; divide 8-bit values by 255")
