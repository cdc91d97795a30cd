"""Figures of a survival run: Kaplan-Meier of risk groups, calibration, and what choosing an epoch is worth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tasks.experiment.compare import best_epoch_rule
from tasks.experiment.report import Figure
from tasks.experiment.report.drawing import sheet
from tasks.experiment.report.numbers import count, decimal, p_value
from tasks.experiment.report.palette import AMBER, BLUE, QUIET, RULE, VERMILLION
from tasks.survival.follow_up import FollowUp
from tasks.survival.risk_groups import logrank, split_at_quantiles

GROUPS = {2: ("Low risk", "High risk"), 3: ("Low risk", "Medium risk", "High risk")}
_COLOURS = {"Low risk": BLUE, "Medium risk": AMBER, "High risk": VERMILLION}
_DASHES: dict[str, object] = {"Low risk": "-", "Medium risk": (0, (1, 1)), "High risk": (0, (5, 1.5))}


def cases(predictions: pd.DataFrame) -> str:
    """`359 patients, 156 events`."""
    return f"{count(predictions['case_id'].nunique(), 'patient')}, {count(int(predictions['event'].sum()), 'event')}"


def risk_groups(predictions: pd.DataFrame, groups: int = 2) -> pd.Series:
    """Which risk group each patient falls into, by the quantiles of risk within the fold that scored the patient.

    Risks of different folds come from different models and share no scale, so they are never ranked together. A patient
    is above a boundary only when the risk is greater than it; constant risks therefore all land in the lowest group.

    Args:
        predictions: columns risk and, when there are several folds, fold (and seed)
        groups: 2 or 3

    Returns:
        the names of the groups, ordered, indexed like `predictions`
    """
    if groups not in GROUPS:
        raise ValueError(f"groups={groups}: Kaplan-Meier groups are 2 or 3")
    keys = [name for name in ("fold", "seed") if name in predictions] or [pd.Series(0, index=predictions.index)]
    index = predictions.groupby(keys)["risk"].transform(lambda risk: split_at_quantiles(risk.to_numpy(), groups))
    return pd.Series(pd.Categorical.from_codes(index, GROUPS[groups], ordered=True), index=predictions.index)


def kaplan_meier(
    predictions: pd.DataFrame, groups: int = 2, key: str = "kaplan-meier", title: str = "Survival by predicted risk"
) -> Figure:
    """Survival of the risk groups with 95 % bands, numbers at risk and the log-rank p value.

    Args:
        predictions: one row per held-out patient: case_id, time (months), event, risk, optionally fold and seed
        groups: 2 or 3
        key: name of the figure
        title: a few words
    """
    group = risk_groups(predictions, groups)
    present = [name for name in GROUPS[groups] if (group == name).any()]
    outcome = FollowUp.of(predictions["time"], predictions["event"])
    p, undefined = logrank(outcome, group.cat.codes.to_numpy())
    test = f"log-rank {p_value(p)}"
    end = _last_month(predictions["time"])
    ticks = _months(end)
    with sheet(key, 262 + 14 * len(present)) as drawn:
        above, below = drawn.canvas.subplots(2, 1, sharex=True, height_ratios=[190, 16 * len(present)])
        spoken = []
        for row, name in enumerate(present):
            inside = predictions[group == name]
            fit = KaplanMeierFitter().fit(inside["time"], inside["event"])
            _step_with_band(above, fit, name, end)
            spoken.append(f"{name}: {decimal(float(fit.predict(end)), 2)} alive at {end:.0f} months")
            for tick in ticks:
                below.text(tick, row, str(int((inside["time"] >= tick).sum())), ha="center", va="center", fontsize=9)
        above.set(ylim=(0, 1.02), ylabel="Proportion surviving", xlim=(-0.02 * end, end))
        above.yaxis.grid(True)
        above.set_axisbelow(True)
        above.text(0.02, 0.04, test, transform=above.transAxes, fontsize=9.5)
        above.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(present), borderaxespad=0, handlelength=2.4)
        _at_risk_axis(below, present, ticks)
    grouping = {2: "the median", 3: "the tertiles"}[groups]
    caption = (
        f"Kaplan-Meier curves of held-out patients, split at {grouping} of predicted risk within each fold; bands are "
        f"95 % intervals, ticks are censored patients. Drawn to {end:.0f} months, where one patient in twenty is left. "
        "A log-rank p value of all patients in a table splits their risks at one median instead, across folds."
    )
    if undefined:
        caption += f" The log-rank p value is undefined: {undefined}."
    alt = f"Kaplan-Meier curves by predicted risk, {test}. " + "; ".join(spoken) + "."
    return Figure(key, drawn.svg, title, caption, cases(predictions), alt)


def calibration(groups: pd.DataFrame, months: float, n: str, key: str = "calibration") -> Figure:
    """Predicted against observed survival at one time.

    Args:
        groups: one row per group of patients: predicted, observed, low, high (proportions), n
        months: the time at which both are taken
        n: cases, in words
        key: name of the figure
    """
    with sheet(key, 280) as drawn:
        axes = drawn.canvas.subplots()
        axes.plot([0, 1], [0, 1], color=QUIET, lw=1.0, ls=(0, (4, 3)))
        axes.annotate("perfect", (0.16, 0.175), ha="center", va="bottom", fontsize=9, color=QUIET, rotation=45)
        axes.vlines(groups["predicted"], groups["low"], groups["high"], color=BLUE, lw=1.4)
        axes.plot(groups["predicted"], groups["observed"], "o-", color=BLUE, ms=5.5, lw=1.0)
        axes.set(xlim=(0, 1.01), ylim=(0, 1.01), aspect="equal")
        axes.set_xlabel(f"Predicted survival at {months:.0f} months")
        axes.set_ylabel("Observed (Kaplan-Meier)")
        axes.grid(True)
        axes.set_axisbelow(True)
    caption = (
        f"Patients in {len(groups)} groups of equal size by predicted survival at {months:.0f} months, against the "
        "Kaplan-Meier estimate of each group with its 95 % interval. On the dashed line prediction and outcome agree."
    )
    spoken = "; ".join(
        f"{decimal(p, 2)} predicted, {decimal(o, 2)} seen" for p, o in groups[["predicted", "observed"]].values
    )
    return Figure(key, drawn.svg, "Calibration", caption, n, f"Calibration at {months:.0f} months. {spoken}.")


def epoch_choice(
    epochs: pd.DataFrame,
    n: str,
    noise: float | None = None,
    epochs_of_noise: int | None = None,
    nested: bool = False,
    key: str = "epochs",
) -> Figure:
    """The c-index of the scored folds after every epoch: last epoch, best epoch, and what noise reaches that way.

    Args:
        epochs: columns fold, epoch (from 0; -1 = untrained), c_index, and seed if there are several
        n: cases, in words
        noise: mean best-of-epochs c-index of random risks on the same folds
        epochs_of_noise: how many draws that is the best of; None = as many as each fold has epochs
        nested: the number of epochs was chosen for each fold, on other patients
        key: name of the figure
    """
    by = [name for name in ("fold", "seed") if name in epochs]
    rule = best_epoch_rule(epochs, "c_index", by)
    last, best = float(rule["last"].mean()), float(rule["best"].mean())
    table = epochs.pivot_table(index="epoch", columns="fold", values="c_index", aggfunc="mean")
    numbers = table.index.to_numpy() + 1
    with sheet(key, 250) as drawn:
        axes = drawn.canvas.subplots()
        for fold in table:
            own = table[fold].dropna()
            axes.plot(own.index + 1, own, color=BLUE, lw=0.9, alpha=0.4, marker="o", ms=3.5, markevery=[-1])
        axes.plot(numbers, table.ffill().mean(axis=1, skipna=False), color=BLUE, lw=2.2)
        marks = [(best, f"best {decimal(best)}", VERMILLION), (last, f"last {decimal(last)}", BLUE)]
        if noise is not None:
            marks.append((noise, f"noise {decimal(noise)}", QUIET))
        axes.axhline(0.5, color=RULE, lw=1.0)
        for value, _, colour in marks:
            axes.axhline(value, color=colour, lw=1.0, ls=(0, (4, 3)))
        low, high = axes.get_ylim()
        for (_, words, colour), height in zip(
            marks, _apart([value for value, *_ in marks], (high - low) * 0.062), strict=True
        ):
            axes.annotate(
                words, (1.015, height), xycoords=("axes fraction", "data"), va="center", fontsize=9.5, color=colour
            )
        axes.set(xlabel="Epoch", ylabel="C-index on the scored fold", ylim=(low, high))
        axes.set_xlim(numbers[0] - 0.02 * len(numbers), numbers[-1])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_axisbelow(True)
    caption = (
        "Thin lines are folds and end in a dot, the thick line is their mean; a fold that has ended keeps its value. "
    )
    caption += (
        "How long each fold is trained was chosen on patients held out of its training side, whatever it scores here"
        if nested
        else "The result of this run is the last epoch, taken whatever it scores here"
    )
    caption += f"; choosing each fold's best epoch on the cases it is scored on would have printed {decimal(best)}."
    if noise is not None:
        tries = f"with {epochs_of_noise} epochs" if epochs_of_noise else "with as many epochs as each fold has"
        caption += f" Risks without any information reach {decimal(noise)} under that rule {tries}."
    alt = f"C-index by epoch: last {decimal(last)}, best {decimal(best)}" + (
        f", noise {decimal(noise)}." if noise else "."
    )
    return Figure(key, drawn.svg, "Last epoch, best epoch, noise", caption, n, alt)


def survival_curves(months: Sequence[float], curves: dict[str, Sequence[float]], key: str = "curves") -> Figure:
    """Predicted survival of single patients over time; the first is emphasised.

    Args:
        months: grid of the curves
        curves: name -> survival probability on that grid
        key: name of the figure
    """
    with sheet(key, 230) as drawn:
        axes = drawn.canvas.subplots()
        for place, (name, values) in enumerate(curves.items()):
            axes.step(
                months,
                values,
                where="post",
                label=name,
                color=BLUE if place == 0 else QUIET,
                lw=2.2 - 1.2 * bool(place),
            )
        axes.set(ylim=(0, 1.02), xlabel="Months", ylabel="Predicted survival")
        axes.grid(True)
        axes.set_axisbelow(True)
        if len(curves) > 1:
            axes.legend()
    alt = "Predicted survival. " + "; ".join(
        f"{name}: {decimal(float(v[-1]), 2)} at the end" for name, v in curves.items()
    )
    return Figure(
        key, drawn.svg, "Predicted survival", "Predicted survival over time.", count(len(curves), "curve"), alt
    )


def _step_with_band(axes: Axes, fit: KaplanMeierFitter, name: str, end: float) -> None:
    colour = _COLOURS[name]
    curve, band = fit.survival_function_.iloc[:, 0], fit.confidence_interval_
    axes.fill_between(band.index, band.iloc[:, 0], band.iloc[:, 1], step="post", color=colour, alpha=0.16, lw=0)
    axes.step(curve.index, curve, where="post", color=colour, ls=_DASHES[name], label=name)
    censored = fit.event_table.index[(fit.event_table["censored"] > 0) & (fit.event_table.index <= end)]
    axes.plot(censored, curve.reindex(censored), "|", color=colour, ms=4, mew=0.7)


def _at_risk_axis(axes: Axes, present: Sequence[str], ticks: np.ndarray) -> None:
    axes.set_ylim(len(present) - 0.5, -0.5)
    axes.set_yticks(range(len(present)), present)
    axes.tick_params(axis="both", length=0)
    axes.tick_params(axis="y", pad=14)
    axes.spines[:].set_visible(False)
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.set_xlabel("Months (above: patients at risk)")


def _last_month(time: pd.Series) -> float:
    """Where one patient in twenty is still followed: beyond it a curve is the fate of a few."""
    return float(np.ceil(np.quantile(time, 0.95)))


def _months(end: float) -> np.ndarray:
    """Four to seven ticks at whole years or half years where the follow-up allows."""
    step = next((s for s in (1, 2, 3, 6, 12, 24, 36, 48, 60, 120) if end / s <= 6.5), 240)
    return np.arange(0, end + 1e-9, step)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """The heights, moved up where labels would touch, order kept."""
    order = np.argsort(heights)
    placed = np.asarray(heights, dtype=float)
    for lower, upper in pairwise(order):
        placed[upper] = max(placed[upper], placed[lower] + gap)
    return placed.tolist()
