"""Every task: a result that is lost is named, on the page too, and comes back; so is a config that is none."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import pytest
import yaml

from tasks.experiment.folder import RunError, RunFolder
from tasks.experiment.task import Task, task_named, task_of

OPTIONS = {
    "survival": "cohort.patients=40 cohort.patches=4 cohort.width=8 cohort.folds=2 trainer.max_epochs=1",
    "melody": "music.songs=24 let.sizes.width=16 let.trainer.max_epochs=1 judged.songs=3 judged.shown=1",
    "fmri": "brains.subjects=4 brains.classes=4 brains.runs=4 split.samples=4 controls.permutations=0",
    "retrieval": "pairs.scenes=80 left.width=16 left.depth=1 right.width=16 right.depth=1 towers.width=16 "
    "towers.hidden=16 fit.batch_size=16 trainer.max_epochs=1",
}
SCORED = {"survival": "predictions.csv", "melody": "nll.csv", "fmri": "predictions.csv", "retrieval": "queries.csv"}


@pytest.fixture(scope="module", params=OPTIONS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, Path]:
    """A task and a run of it, every unit finished."""
    task, runs = task_named(request.param), tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(task), "finish", lambda *_: None)
        assert train(task, runs, resume=False) == 0
    return task, runs / task.name / "small"


def train(task: Task, runs: Path, resume: bool = True) -> int:
    chosen = [*OPTIONS[task.name].split(), "name=small", f"runs={runs}"]
    return task.train([f"{task.name}/demo"], chosen, [0], [1], resume=resume)


@pytest.fixture
def copied(whole: tuple[Task, Path], tmp_path: Path) -> tuple[Task, Path, Path]:
    """The task, a run of its own, and the table that the arm under test is scored by."""
    task, run = whole
    shutil.copytree(run, tmp_path / task.name / "small")
    own = tmp_path / task.name / "small"
    return task, own, own / "small" / "fold0-seed1" / SCORED[task.name]


def test_a_lost_result_is_named_and_comes_back(
    copied: tuple[Task, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    task, run, path = copied
    before = path.read_bytes()
    path.unlink()
    line = f"{path}: missing, although its unit had finished; repeat the run with --resume"
    page = task_of(run).report(run).read_text()
    assert capsys.readouterr().err.splitlines() == [line]
    assert line in html.unescape(page)
    assert "1 failed" in page
    monkeypatch.setattr(type(task), "finish", lambda *_: None)
    assert train(task, run.parents[1]) == 0
    assert f"{path}: missing, although its unit had finished; small/fold0-seed1 is run again" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_damaged_result_without_a_list_is_named(copied: tuple[Task, Path, Path]):
    task, run, path = copied
    for done in run.rglob("done.json"):
        done.write_text(json.dumps({key: said for key, said in json.loads(done.read_text()).items() if key != "files"}))
    path.write_text("{")
    with pytest.raises(RunError, match=r"has no column .*, it begins with \{; remove .*fold0-seed1 and repeat the run"):
        task.report(run)


def test_a_run_of_which_little_is_said_is_reported(copied: tuple[Task, Path, Path]):
    """No section of the config but the name of another arm."""
    task, run, _ = copied
    (run / "config.yaml").write_text(yaml.safe_dump({"task": task.name, "name": "other", "rivals": {"small": None}}))
    assert "other" in task.report(run).read_text()


BAD_CONFIGS = {
    "task: survival": "has no name",
    "name: [a]": r"name is \['a'\], expected text",
    "name: null": "name is None, expected text",
    "name: a\nrivals: 3": "rivals is 3, expected a mapping",
    "name: a\nbaselines: [b]": r"baselines is \['b'\], expected a mapping",
    "name: a\ncohort: 3": "cohort is 3, expected a mapping",
    "name: a\npairs: 3": "pairs is 3, expected a mapping",
    "name: a\nbrains: text": "brains is 'text', expected a mapping",
    "name: a\nmusic: [1]": r"music is \[1\], expected a mapping",
    "name: a\ncontrols: {permutations: many}": "controls.permutations is 'many', expected a number",
    "name: a\nbrains: {init_args: {lag: true}}": "brains.init_args.lag is True, expected a number",
    "name: a\nrivals: {b: {class_path: 3}}": "rivals.b.class_path is 3, expected text",
    "name: a\nmodel: {init_args: [{init_args: 1}]}": r"model.init_args is \[.*\], expected a mapping",
    "name: a\nx: [{init_args: 1}]": "x.0.init_args is 1, expected a mapping",
    "name: a\n1: 2": "the name 1 is int; put it in quotes",
    "name: a\nx: &x [*x]": "more than 50000 entries",
    "[a]": "not the config of a run, found list",
    "a: [": "cannot be read",
    "name: \xff": "",
}


@pytest.mark.parametrize("content", BAD_CONFIGS)
def test_a_damaged_config_is_named_with_a_remedy(content: str, tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(RunError, match=rf"config\.yaml: {BAD_CONFIGS[content]}.*; restore it, or remove it and train"):
        task_of(tmp_path)


def test_a_config_without_a_task_is_named(tmp_path: Path):
    for content in ("name: a", "name: a\ntask: 3", "name: a\ntask: survvial"):
        (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(RunError, match=r"config\.yaml: task: .*; restore it, or remove it and train again"):
            task_of(tmp_path)


def test_the_remedy_for_a_damaged_config_keeps_what_is_finished(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.create({"name": "a"}, [], resume=False)
    (tmp_path / "config.yaml").write_text("name: [")
    with pytest.raises(RunError, match="remove it and train again with --resume"):
        run.create({"name": "a"}, [], resume=True)
    (tmp_path / "config.yaml").unlink()
    run.create({"name": "a"}, [], resume=True)
    assert run.config == {"name": "a"}
