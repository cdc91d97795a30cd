"""Reports of every task over data whose names try to be markup: shown as text, never run."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
import yaml

from data.music.song_files import as_json
from data.simulate.melodies import GeneratedSongs
from data.slides.journal import Record
from tasks.fmri.train import TASK as FMRI
from tasks.melody.explain import explain
from tasks.melody.train import TASK as MELODY
from tasks.retrieval.train import TASK as RETRIEVAL
from tasks.survival.contact_sheet import contact_sheet
from tasks.survival.train import TASK as SURVIVAL
from tests.tasks.fmri import runs as fmri_runs
from tests.tasks.fmri import toy as fmri_toy
from tests.tasks.melody import test_melody_run as melody_runs
from tests.tasks.pages import Page
from tests.tasks.retrieval import toy as retrieval_toy

EVIL = "<script>x<img src=y onerror=z>\"'&amp;"


def safe(html: str, shown: str = EVIL) -> None:
    """The page runs and fetches nothing, and the name stands in it letter by letter."""
    page = Page(html)
    assert [breach for breach in page.breaches if "handler" in breach or "<" in breach or "outside" in breach] == []
    assert shown in page.words


def test_survival(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    n = 40
    table = pd.DataFrame(rng.standard_normal((n, 4)), columns=[f"G{k}{EVIL}_rnaseq" for k in range(4)])
    table.insert(0, "case_id", [f"{EVIL}{k}" for k in range(n)])
    table["site"], table["age"] = EVIL, rng.integers(40, 80, n)
    table["survival_months"], table["censorship"] = rng.exponential(20, n).round(2) + 0.1, [k % 2 for k in range(n)]
    table.to_csv(tmp_path / f"{EVIL}.csv", index=False)
    (tmp_path / "sets.gmt").write_text(f"{EVIL}\tx\t" + "\t".join(f"G{k}{EVIL}" for k in range(4)) + "\n")
    config = {
        "extends": "_base/survival.yaml",
        "model": "SNN",
        "name": EVIL,
        "runs": str(tmp_path / "runs"),
        "cohort": {
            "class_path": "TableCohort",
            "init_args": {"table": str(tmp_path / f"{EVIL}.csv"), "groups": str(tmp_path / "sets.gmt"), "folds": 2},
        },
        "rivals": {f"rival {EVIL}": "SNN"},
        "prepare": {"init_args": {"bins": 2}},
        "loss": {"init_args": {"bins": 2}},
        "trainer": {"max_epochs": 1},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert SURVIVAL.train([str(tmp_path / "c.yaml")]) == 0
    safe((tmp_path / "runs" / "survival" / EVIL / "report.html").read_text())


def test_fmri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fmri_toy, "CLASSES", [f"{kind} {EVIL}" for kind in ("cat", "face", "house")])
    config = fmri_runs.toy_config(tmp_path / "runs", name=EVIL)
    config["brains"]["init_args"]["subjects"] = [EVIL]
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config))
    assert FMRI.train([str(path)]) == 0
    safe((tmp_path / "runs" / "fmri" / EVIL / "report.html").read_text())


def test_retrieval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    named = {f"{colour} {EVIL}": value for colour, value in retrieval_toy.COLOURS.items()}
    monkeypatch.setattr(retrieval_toy, "COLOURS", named)
    config = retrieval_toy.config(tmp_path / "runs", name=EVIL, trainer={"max_epochs": 1, "accelerator": "cpu"})
    config["rivals"] = {f"rival {EVIL}": "GlobalContrast"}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config))
    assert RETRIEVAL.train([str(path)]) == 0
    safe((tmp_path / "runs" / "retrieval" / EVIL / "report.html").read_text())


def test_melody(tmp_path: Path):
    """Songs of the user's files: their names, titles and the folder; and the names of the run and of its rivals."""
    folder = tmp_path / f"songs {EVIL}"
    folder.mkdir()
    songs = [as_json(song) for song in GeneratedSongs(24).load().songs]
    for k, song in enumerate(songs):
        song |= {"id": f"{k} {EVIL}", "title": EVIL, "genre": EVIL, "origin": EVIL}
    (folder / f"{EVIL}.json").write_text(json.dumps({"ticks_per_quarter": 24, "songs": songs}))
    config = {
        "extends": "_base/melody.yaml",
        "name": EVIL,
        "music": {"class_path": "FolderSongs", "init_args": {"folder": str(folder)}},
        "let": melody_runs.SMALL,
        "rivals": {
            "no skeleton": None,
            "shuffled skeletons": None,
            f"rival {EVIL}": {"class_path": "Markov", "init_args": {"order": 1}},
        },
        "judged": {"songs": 3, "shown": 1},
        "runs": str(tmp_path / "runs"),
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config))
    assert MELODY.train([str(path)]) == 0
    run = tmp_path / "runs" / "melody" / EVIL
    html = (run / "report.html").read_text()
    safe(html)
    assert any(f"{k} {EVIL}: generated" in Page(html).words for k in range(len(songs))), "the name of a song"
    one = tmp_path / f"{EVIL}.json"
    one.write_text(json.dumps(songs[0]))
    safe(explain(run, one).read_text())


def test_slides(tmp_path: Path):
    facts = dict.fromkeys(("width", "height", "mpp", "mpp_source", "tissue_mm2", "patch_level0", "read_level"), EVIL)
    rows = [
        Record(EVIL, "done", warnings=(EVIL,), facts=facts, files=(f"contours/{EVIL}.jpg",)),
        Record("b", "failed", why=EVIL, warnings=(EVIL,)),
    ]
    settings = {"grid": {"patch": 256, "mpp": 0.5, "overlap": 0}, "encoder": {"class_path": f"x.{EVIL}"}}
    page = Page(contact_sheet(rows, tmp_path / EVIL, settings, 1.0))
    assert EVIL in page.words
    assert not [breach for breach in page.breaches if breach.startswith("<") or " has a handler " in breach]
    assert {attrs.get("src") for attrs in page.all("img")} == {f"contours/{quote(EVIL)}.jpg"}
