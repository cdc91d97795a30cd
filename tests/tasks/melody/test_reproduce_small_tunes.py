"""The rows of `fusion reproduce small-tunes`: what counts as kept, gained and alike, on tables of known answer."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from data.errors import DataError
from data.music.essen import EssenSongs
from tasks.catalogue import PAPERS
from tasks.melody.judged import Judged, with_judged
from tasks.melody.results import Results
from tasks.reproduce import small_tunes

JUDGED, PART = Judged(genre="xiaodiao"), "decorative pitch"


def results_of(**tables: pd.DataFrame) -> Results:
    """A finished run with these tables."""
    none: dict = dict.fromkeys(("measured", "epochs", "binding"), pd.DataFrame())
    none |= dict.fromkeys(("summary", "comparisons", "generation"))
    config = {"name": "small_tunes_reproduced"}
    return Results(Path("run"), config, {}, "", {}, [], [], [], **(none | tables))


def run_of(own: float, none: float, shuffled: float) -> Results:
    """What three trainings of three arms would leave."""
    arms = {"small_tunes_reproduced": own, "no skeleton": none, "shuffled skeletons": shuffled}
    rows = [
        {"arm": arm, "seed": seed, "split": "test", "part": PART, "case": case, "n": 10, "nats": 10 * nats}
        for arm, nats in arms.items() for seed in (1, 2, 3) for case in ("a", "b")
    ]  # fmt: skip
    summary = [
        {"arm": arm, "split": "test", "part": PART, "low": nats - 0.02, "high": nats + 0.02}
        for arm, nats in arms.items()
    ]
    return results_of(measured=pd.DataFrame(rows), summary=pd.DataFrame(summary))


@pytest.mark.parametrize(("own", "shuffled", "held"), [(1.40, 1.51, [True, True]), (1.45, 1.45, [False, False])])
def test_a_gain_and_no_gain_are_told_apart(own: float, shuffled: float, held: list[bool]):
    rows = list(small_tunes._worth_of_a_skeleton(run_of(own, 1.50, shuffled)))
    assert [row["ok"] for row in rows] == held
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0]["ours"] == pytest.approx(1.50 - own)
    assert (rows[0]["n"], rows[0]["seeds"]) == (20, [1, 2, 3])


def test_generated_songs_are_held_to_the_way_from_the_table_to_real_songs():
    values = {"OA(PCH)": 0.9, "OA(IOI)": 0.8, "SE": 0.015, "copied": 9.0}
    rows = [
        {"arm": arm, "metric": metric, "value": value, "low": value, "high": value, "songs": 9, "seeds": 1, "real": 9}
        for arm in ("small_tunes_reproduced", "Markov table") for metric, value in values.items()
    ]  # fmt: skip
    made = list(small_tunes._generated(results_of(generation=pd.DataFrame(rows))))
    assert [row["ok"] for row in made] == [True, False, True, True]
    assert json.loads(json.dumps(made)) == made
    assert made[0]["against"] == pytest.approx((0.760 + 0.965) / 2)


def test_promises_and_real_songs_on_the_data_itself(shared_data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(small_tunes, "AT_ONCE", 20)
    book = with_judged(EssenSongs(notes=str(shared_data / "music" / "essen_han.json.xz")).load(), JUDGED)
    found = small_tunes._of_random_weights(book, [3])
    row = small_tunes._promises_of_random_weights([found, found])
    assert row["ok"]
    assert (row["ours"], row["n"]) == (1, 40)
    assert all(row["ok"] for row in small_tunes._real_beside_real(book))


def test_a_missing_data_set_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="fusion data import essen --from FOLDER"):
        small_tunes.run(tmp_path)
    assert PAPERS["small-tunes"].needs == "music"
