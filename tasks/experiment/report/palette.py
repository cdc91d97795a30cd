"""Every colour of a report, once: page and figures, light and dark, tellable apart by colour-blind readers.

The hues are those of Okabe and Ito (2008), darkened for lines on white paper and lightened for a dark page. Figures are
drawn in the light colours; `themed` turns each of them into a CSS variable, so that an inlined figure follows the page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """One colour in its two versions, `#rrggbb`."""

    light: str
    dark: str


PAGE = {
    "paper": Colour("#ffffff", "#14171b"),
    "panel": Colour("#f5f6f7", "#1c2025"),
    "own": Colour("#e8f1f8", "#1b2e3d"),
    "rule": Colour("#d9dde1", "#343a41"),
    "ink": Colour("#1d2126", "#e7e9ec"),
    "quiet": Colour("#5a636d", "#a3abb4"),
}
DATA = {
    "blue": Colour("#0067a5", "#5ab4ec"),
    "vermillion": Colour("#a83800", "#f59660"),
    "green": Colour("#0a8a68", "#3ccfa4"),
    "purple": Colour("#a0448a", "#e3a3cf"),
    "amber": Colour("#b07d00", "#ecc04c"),
}

INK, QUIET, RULE, PAPER = (PAGE[name].light for name in ("ink", "quiet", "rule", "paper"))
BLUE, VERMILLION, GREEN, PURPLE, AMBER = (colour.light for colour in DATA.values())
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, AMBER)
OVER, UNDER = "#000000", "#fefefe"
"""Of marks on a picture of somebody's, which looks the same on a light and on a dark page."""
HEAT = "viridis"
"""matplotlib's name of the map for amounts (attention, density): lightness rises with the amount, for every reader."""

_NAMES = {colour.light: name for name, colour in (PAGE | DATA).items()}
_HEX = re.compile("|".join(_NAMES), re.IGNORECASE)


def css() -> str:
    """Custom properties of both themes: `--ink`, `--blue`, ..."""

    def rules(version: str) -> str:
        return " ".join(f"--{name}: {getattr(colour, version)};" for name, colour in (PAGE | DATA).items())

    return (
        f":root {{ color-scheme: light dark; {rules('light')} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {rules('dark')} }} }}\n"
        f"@media print {{ :root {{ color-scheme: light; {rules('light')} }} }}\n"
    )


def themed(svg: str) -> str:
    """Replace the light colours of an SVG by the page's variables, the light colour being the fallback."""
    return _HEX.sub(lambda found: f"var(--{_NAMES[found[0].lower()]}, {found[0].lower()})", svg)
