"""Help comes at once: no command imports anything heavy before it has something to do, and each says what it is for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAYS = {
    "fusion": "reproduce",
    "survival": "--quiet",
    "fmri": "fmri BIDS OUT participant --participant-label 01",
    "melody": "--infill",
    "retrieval": "search",
}
PROBE = """
import sys
from importlib import import_module
from typer.main import get_command

name, module = sys.argv[1:]
cli = import_module(module)

def commands(group, path):
    yield path
    for key, sub in getattr(group, "commands", {}).items():
        yield from commands(sub, [*path, key])

for words in list(commands(get_command(cli.app), [name])):
    sys.argv = [*words, "--help"]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, words
heavy = {"torch", "lightning", "pandas", "numpy", "scipy", "sklearn", "nibabel", "nilearn", "faiss", "openslide"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


@pytest.mark.parametrize("program", SAYS)
def test_help_of_every_command_imports_nothing_heavy(program: str):
    module = "tasks.cli" if program == "fusion" else f"tasks.{program}.cli"
    done = subprocess.run(
        [sys.executable, "-c", PROBE, program, module], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[program] in " ".join(done.stdout.split())
    assert done.stdout.count("Usage: ") > 5
