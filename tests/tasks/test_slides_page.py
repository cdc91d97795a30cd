"""docs/slides.md tells the truth: its commands parse, its encoders exist, its files are written."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

import encoders.patch
from data.slides.generated import stained, write_slide
from tasks.survival.cli import main
from tasks.survival.features import extract

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "slides.md").read_text()
COMMANDS = re.findall(r"^survival features .*?(?=\s+#|$)", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", [*shlex.split(command), "--print-config"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0, capsys.readouterr().err
    assert capsys.readouterr().out.startswith("encoder:")


def test_the_table_names_every_encoder():
    named = set(re.findall(r"`(\w+)(?: encoder\.model=\S+)?`[,| ]", PAGE))
    assert set(encoders.patch.__all__) - {"PatchEncoder"} <= named


def test_the_files_of_the_page_are_the_files_of_a_run(tmp_path: Path):
    slide = write_slide(tmp_path / "SLIDE.svs", stained(620, 500), mpp=0.5)
    for column, layout in enumerate(("trident", "clam")):
        out = tmp_path / layout
        extract(slide, out, {"tissue": {"smallest": 2000.0}}, layout=layout, jobs=1, share="slides")
        rows = re.findall(r"^\| (.*?) \| (.*?) \|$", PAGE.partition("`--layout clam`")[2], re.MULTILINE)
        promised = [name for row in rows for name in re.findall(r"`(\S+)`", row[column])]
        assert len(promised) >= 2
        for name in [*promised, "contact_sheet.html", "summary.csv", "journal.jsonl", "contours/SLIDE.jpg"]:
            assert (out / name.replace("ENCODER", "staintexture")).is_file(), name
