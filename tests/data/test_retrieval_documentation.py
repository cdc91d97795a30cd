"""The config of docs/retrieval-data.md loads pairs, and every class that the page names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser
from PIL import Image

from data.pairs import arrays, captions, emoji, folk, matched, sources
from data.pairs.items import PairSource
from data.simulate import scenes
from encoders import adapters, image, melody, text
from encoders.encoder import Encoder

DOC = Path(__file__).resolve().parents[2] / "docs" / "retrieval-data.md"


def test_the_documented_config_loads_pictures_with_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (70, 90), (200, 0, 0)).save("photos/red.jpg")
    Path("captions.csv").write_text("image,caption\nred.jpg,a red wall\n")
    snippet = re.search(r"```yaml\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert snippet is not None
    parser = ArgumentParser()
    parser.add_subclass_arguments(PairSource, "pairs")
    for side in ("left", "right"):
        parser.add_subclass_arguments(Encoder, side)
    built = parser.instantiate(parser.parse_object(yaml.safe_load(snippet[1])))
    pairs = built.pairs.load()
    assert built.left(pairs.left.load([0])).x.shape == (1, 64, 64)
    assert built.right(pairs.right.load([0])).width == 64


def test_every_class_of_the_page_exists():
    rooms = (arrays, captions, emoji, folk, matched, sources, scenes, adapters, image, melody, text)
    first = re.findall(r"^\| (`[A-Z].*?) \|", DOC.read_text(), re.MULTILINE)
    named = [name for cell in first for name in re.findall(r"`(\w+)`", cell)]
    assert len(named) == 23
    assert all(any(hasattr(room, name) for room in rooms) for name in named)
