"""Figures of survival: they show what was computed, whatever the data look like."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter

from tasks.survival import figures
from tests.tasks.survival_runs import patients


def scored(count: int = 90, **columns: object) -> pd.DataFrame:
    cohort = patients(count).rename(columns={"truth": "risk"})
    return cohort.assign(fold=np.arange(count) % 3, **columns)


def texts(svg: str | bytes) -> list[str]:
    assert isinstance(svg, str)
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_risk_groups_are_ranks_within_a_fold_whatever_the_scale_of_its_model():
    table = scored()
    stretched = table.assign(risk=table["risk"] * (1 + 10 * table["fold"]) + 100 * table["fold"])
    for groups in (2, 3):
        assert figures.risk_groups(table, groups).equals(figures.risk_groups(stretched, groups))
    sizes = figures.risk_groups(table, 3).groupby(table["fold"]).value_counts()
    assert sizes.between(9, 11).all()


def test_a_higher_risk_is_never_in_a_lower_group():
    table = scored()
    for _, fold in table.assign(group=figures.risk_groups(table, 3).cat.codes).groupby("fold"):
        assert fold.sort_values("risk")["group"].is_monotonic_increasing


def test_the_at_risk_table_counts_patients_still_followed():
    table = scored()
    group = figures.risk_groups(table)
    found = texts(figures.kaplan_meier(table).image)
    for name in ("Low risk", "High risk"):
        for month in (0, 12, 24):
            assert str(int((table["time"][group == name] >= month).sum())) in found


def test_the_curves_are_those_of_lifelines():
    table = scored()
    figure = figures.kaplan_meier(table)
    high = table[figures.risk_groups(table) == "High risk"]
    end = float(np.ceil(np.quantile(table["time"], 0.95)))
    at_end = KaplanMeierFitter().fit(high["time"], high["event"]).predict(end)
    assert f"High risk: {at_end:.2f} alive at {end:.0f} months" in figure.alt
    assert figure.n == f"90 patients, {table['event'].sum()} events"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"risk": 1.0}, "all patients fall into one risk group"),
        ({"event": False}, "no patient had the event"),
    ],
)
def test_an_undefined_log_rank_test_is_drawn_with_its_reason(columns: dict[str, object], reason: str):
    figure = figures.kaplan_meier(scored().assign(**columns))
    assert reason in figure.caption
    assert "log-rank p undefined" in texts(figure.image)


def test_one_patient_can_be_drawn():
    assert (
        figures.kaplan_meier(scored(1)).n == "1 patient, 0 events" or "1 patient" in figures.kaplan_meier(scored(1)).n
    )


def test_other_numbers_of_groups_are_refused():
    with pytest.raises(ValueError, match="groups=5: Kaplan-Meier groups are 2 or 3"):
        figures.kaplan_meier(scored(), groups=5)


def test_the_epoch_figure_names_last_best_and_noise():
    epochs = pd.DataFrame({"fold": [0, 0, 0, 1, 1], "epoch": [0, 1, 2, 0, 1], "c_index": [0.5, 0.7, 0.6, 0.52, 0.56]})
    figure = figures.epoch_choice(epochs, "80 patients", noise=0.61, epochs_of_noise=3)
    assert {"last 0.580", "best 0.630", "noise 0.610"} <= set(texts(figure.image))
    assert "random" not in figures.epoch_choice(epochs, "80 patients").caption


def test_the_epoch_figure_says_who_chose_the_number_of_epochs():
    epochs = pd.DataFrame({"fold": [0, 0, 1], "epoch": [0, 1, -1], "c_index": [0.5, 0.7, 0.6]})
    chosen = figures.epoch_choice(epochs, "80 patients", noise=0.61, nested=True)
    assert "chosen on patients held out of its training side" in chosen.caption
    assert "with as many epochs as each fold has" in chosen.caption
    assert "last 0.650" in texts(chosen.image)
    assert "is the last epoch, taken whatever" in figures.epoch_choice(epochs, "80 patients").caption


def test_labels_that_would_touch_are_moved_apart_in_order():
    placed = figures._apart([0.60, 0.605, 0.55], 0.02)
    assert placed == pytest.approx([0.60, 0.62, 0.55])


def test_the_calibration_figure_holds_its_numbers():
    groups = pd.DataFrame(
        {"predicted": [0.3, 0.8], "observed": [0.4, 0.7], "low": [0.2, 0.6], "high": [0.5, 0.8], "n": [9, 9]}
    )
    figure = figures.calibration(groups, 36.0, "18 patients")
    assert "0.30 predicted, 0.40 seen" in figure.alt
    assert "Predicted survival at 36 months" in texts(figure.image)


def test_every_figure_is_the_same_bytes_twice():
    assert figures.kaplan_meier(scored()).image == figures.kaplan_meier(scored()).image
