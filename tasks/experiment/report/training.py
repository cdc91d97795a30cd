"""The figure of a choice that validation made: its score after every epoch, and the epoch whose weights are kept."""

from __future__ import annotations

from itertools import cycle
from typing import Literal

import pandas as pd

from tasks.experiment.report.drawing import sheet
from tasks.experiment.report.numbers import count, decimal
from tasks.experiment.report.palette import SERIES
from tasks.experiment.report.parts import Figure


def epoch_choice(
    epochs: pd.DataFrame, column: str, better: Literal["lower", "higher"], score: str, caption: str
) -> Figure:
    """A line for every training, a colour for every arm, a dot at the chosen epoch.

    Args:
        epochs: rows of arm, seed, epoch (from 0) and the score
        column: of the score
        better: where the chosen epoch lies
        score: its name, on the axis and in the text alternative
        caption: what is scored; that the dot is the choice is added
    """
    with sheet("epochs", 230.0) as drawn:
        axes = drawn.canvas.subplots()
        spoken = []
        for colour, (arm, rows) in zip(cycle(SERIES), epochs.groupby("arm", sort=False), strict=False):
            for at, (_, unit) in enumerate(rows.groupby("seed")):
                best = unit.loc[unit[column].idxmin() if better == "lower" else unit[column].idxmax()]
                axes.plot(unit["epoch"] + 1, unit[column], color=colour, label=arm if at == 0 else None)
                axes.plot([best["epoch"] + 1], [best[column]], "o", color=colour)
                if at == 0:
                    spoken.append(f"{arm}: {decimal(best[column])} in epoch {int(best['epoch']) + 1}")
        axes.set_xlabel("Epoch")
        axes.set_ylabel(f"{score} ({better} is better)")
        axes.grid(axis="y")
        axes.legend()
    return Figure(
        "epochs",
        drawn.svg,
        "How the epoch was chosen",
        f"{caption} after every epoch; the dot is the epoch whose weights are kept. The test split was not looked at.",
        count(epochs.groupby(["arm", "seed"]).ngroups, "training"),
        f"{score} by epoch. {'; '.join(spoken)}.",
    )
