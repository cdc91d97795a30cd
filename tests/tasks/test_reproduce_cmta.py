"""The rows and sentences of `fusion reproduce cmta` on arms of known worth, and its small form on real patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.errors import DataError
from tasks.catalogue import reproduction, reproduction_page
from tasks.experiment.signatures import ConfigError
from tasks.reproduce import cmta
from tasks.reproduce.cmta import LINEAR, SLIDES, Point
from tasks.reproduce.cmta_runs import APART, EXACT, PERFECT, PUBLISHED, TOGETHER, with_apart
from tasks.reproduce.writing import write_section
from tasks.survival.report_tables import CEILING

COHORTS = ("blca", "luad")


def predictions(weights: dict[str, tuple[float, float]], seed: int, n: int = 240) -> pd.DataFrame:
    """Patients who die by a slide term and a gene term, and arms that know each of them to the given weight."""
    draw = np.random.default_rng(seed)
    slide, genes, noise = draw.normal(size=(3, n))
    time = draw.exponential(np.exp(-1.5 * (slide + genes)))
    cases = pd.DataFrame(
        {"fold": [str(i % 2) for i in range(n)], "seed": 1, "case_id": [f"P{i}" for i in range(n)],
         "time": time + 0.01, "event": draw.uniform(size=n) < 0.8}
    )  # fmt: skip
    arms = [cases.assign(arm=arm, risk=a * slide + b * genes + 0.3 * noise) for arm, (a, b) in weights.items()]
    return pd.concat(arms, ignore_index=True)


def point(information: float | None, **fused: tuple[float, float]) -> Point:
    """Slides and genes alone, fused arms as given, and the ceiling."""
    slides = 0.0 if information == 0 else 1.0
    arms = {SLIDES: (slides, 0.0), LINEAR: (0.0, 1.0), PERFECT: (slides, 0.0), CEILING: (slides, 1.0)}
    names = {"exact": EXACT, "published": PUBLISHED, "mcat": "MCAT"}
    arms |= {names[arm]: weights for arm, weights in fused.items()}
    name = "real slides" if information is None else f"semi-real, information {information:g}"
    tables = {study: predictions(arms, seed) for seed, study in enumerate(COHORTS, start=5)}
    return cmta.point_of(name, information, tables)


@pytest.fixture(scope="module")
def known() -> Point:
    return point(0.6, exact=(1.0, 1.0), published=(0.0, 1.0), mcat=(0.0, 0.0))


def test_an_arm_adds_when_it_is_above_either_modality(known: Point):
    rows = {row["name"]: row for row in cmta.rows_of(known)}
    held = {name.split(": ")[1]: row["ok"] for name, row in rows.items()}
    assert held == {
        EXACT: True, PUBLISHED: False, "MCAT": None, SLIDES: True, "ceiling": True,
        f"{EXACT}, against MCAT": True, f"{PUBLISHED}, against MCAT": True,
    }, "what another arm adds is an answer, not a claim of the paper"  # fmt: skip
    row = rows[f"semi-real, information 0.6: {EXACT}"]
    assert row["against"] == pytest.approx(max(known.means[arm][0] for arm in (SLIDES, LINEAR)))
    assert row["kind"] == "rival"
    assert row["low"] < row["ours"] < row["high"]
    assert (row["n"], row["seeds"]) == (2 * 240, [1])
    assert "100% of what the ceiling adds" in row["note"]
    assert all(study in row["note"] for study in COHORTS)
    assert f"minus {SLIDES} +" in row["note"]


def test_the_sentence_is_what_the_intervals_say(known: Point):
    said = dict(sentence.split(" (semi-real slides, mean of 2 cohorts): ") for sentence in cmta.statements([known]))
    assert set(said) == {EXACT, PUBLISHED, "MCAT"}
    assert "at information 0.6 fusion adds something, it is better than either modality" in said[EXACT]
    assert "no addition is shown, it is not distinguishable from" in said[PUBLISHED]
    assert "fusion adds nothing, it is worse than" in said["MCAT"]
    for arm in said:
        gains = [known.over(arm, other) for other in (SLIDES, LINEAR)]
        assert ("fusion adds something" in said[arm]) == all(gain.low > 0 for gain in gains)
        assert ("worse than" in said[arm]) == any(gain.high < 0 for gain in gains)


def test_without_information_an_arm_must_add_nothing_and_slides_must_be_at_chance():
    honest = {row["name"].split(": ")[1]: row for row in cmta.rows_of(point(0.0, exact=(0.0, 1.0)))}
    assert honest[EXACT]["ok"]
    assert "the slides know nothing" in honest[EXACT]["note"]
    assert honest[SLIDES]["ok"]
    leaking = {row["name"].split(": ")[1]: row["ok"] for row in cmta.rows_of(point(0.0, exact=(1.0, 1.0)))}
    assert not leaking[EXACT]
    assert not leaking["ceiling"], "an arm above the ceiling knows what it should not"


def test_halves_that_were_trained_apart_are_averaged_in_their_own_units():
    table = predictions({SLIDES: (1.0, 0.0), LINEAR: (0.0, 50.0), "late fusion": (1.0, 0.2)}, seed=1)
    found = cmta.point_of("semi-real, information 0.6", 0.6, {"blca": with_apart(table)}).means
    assert set(found) == {SLIDES, LINEAR, TOGETHER, APART}
    assert found[APART][0] > max(found[SLIDES][0], found[LINEAR][0], found[TOGETHER][0]) + 0.05
    unseen = with_apart(table.assign(time=1.0, event=True))
    kept = unseen["arm"] == APART
    assert unseen.loc[kept, "risk"].tolist() == with_apart(table).loc[kept, "risk"].tolist(), "outcomes are not read"


def test_every_row_is_labelled_semi_real_and_the_curve_is_drawn_from_them(known: Point, tmp_path: Path):
    points = [point(0.0, exact=(0.0, 1.0)), known]
    rows = [row for at in points for row in cmta.rows_of(at)]
    assert all(row["name"].startswith("semi-real, information ") for row in rows)
    (drawn,) = cmta.figures(rows)
    assert f"{EXACT}: 0 " in drawn.alt
    assert ", 0.6 " in drawn.alt
    assert cmta.figures([]) == []
    outcome = cmta.result("cmta", rows, cmta.statements(points))
    page = reproduction_page("cmta", outcome, tmp_path / "page.html").read_text()
    write_section(tmp_path / "REPRODUCED.md", "CMTA", cmta, outcome, small=True)
    for text in (page, (tmp_path / "REPRODUCED.md").read_text()):
        assert "fusion adds something" in text
    assert "What fusion makes of slides" in page


def test_features_of_real_slides_stand_beside_what_is_recalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def own(_: object, study: str, folder: Path) -> pd.DataFrame:
        seen.append((study, folder))
        weights = {SLIDES: (1.0, 0.0), LINEAR: (0.0, 1.0), EXACT: (1.0, 1.0), PUBLISHED: (0.5, 1.0)}
        return predictions(weights, seed=0)

    monkeypatch.setattr(cmta, "real", own)
    features = tmp_path / "features"
    (features / "luad").mkdir(parents=True)
    (tmp_path / "mutsig").mkdir()
    outcome = cmta.run(tmp_path, features=features)
    assert seen == [("luad", features / "luad")]
    names = [row["name"] for row in outcome["rows"]]
    assert f"real slides: {EXACT}" in names
    assert f"luad: {PUBLISHED}" in names
    assert not any("semi-real" in name for name in names)
    with pytest.raises(DataError, match="no folder of features here; name one after its cohort: blca"):
        cmta.run(tmp_path, small=True, features=features)


def test_what_is_missing_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"no such file or folder; .*`fusion data import tcga --from FOLDER`"):
        cmta.run(tmp_path)
    with pytest.raises(ConfigError, match="reproduce haxby: it reads no slides, so leave out --features"):
        reproduction("haxby", tmp_path)


@pytest.mark.slow
def test_the_small_form_on_real_patients(shared_data: Path):
    outcome = cmta.run(shared_data / "tcga", small=True)
    names = [row["name"] for row in outcome["rows"]]
    for amount in cmta.SMALL_AMOUNTS:
        at = f"semi-real, information {amount:g}: "
        arms = [arm for arm in cmta.ARMS if arm != PUBLISHED or amount == cmta.SMALL_PUBLISHED_AT]
        beside = [f"{arm}, against MCAT" for arm in cmta.CLAIMED if arm in arms and amount]
        assert [f"{at}{arm}" for arm in (*arms, *beside, SLIDES, "ceiling")] == [n for n in names if n.startswith(at)]
    assert len(outcome["said"]) == len(cmta.ARMS)
    controls = [row for row in outcome["rows"] if "information 0:" in row["name"] or "ceiling" in row["name"]]
    assert [row["name"] for row in controls if row["ok"] is False] == []
