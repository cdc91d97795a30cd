"""Piano rolls: every note is drawn at its place, phrases are boxes, skeleton notes have their own colour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from PIL import Image

from data.errors import DataError
from tasks.experiment.report.palette import AMBER, BLUE, VERMILLION
from tasks.melody import piano_roll
from tasks.melody.piano_roll import roll_figure, write_roll
from tests.data.music_files import melody


def drawn(bars: int = 4, **other: object) -> list[Rectangle]:
    song = replace(melody(), **other)  # type: ignore[arg-type]
    canvas = Canvas()
    piano_roll._draw(canvas, song, song.position == 0, bars)
    return [patch for axes in canvas.axes for patch in axes.patches if isinstance(patch, Rectangle)]


def test_every_note_is_drawn_once_at_its_place_in_its_colour():
    song = melody()
    notes = [patch for patch in drawn() if to_hex(patch.get_facecolor()) in (BLUE, VERMILLION)]
    places = sorted((round(patch.get_x() - 0.4), round(patch.get_y() + 0.45)) for patch in notes)
    assert places == sorted(zip(song.onset.tolist(), song.pitch.tolist(), strict=True))
    marked = [patch for patch in notes if to_hex(patch.get_facecolor()) == VERMILLION]
    assert len(marked) == (song.position == 0).sum()


def test_a_phrase_is_a_box_in_every_row_it_reaches():
    boxes = [patch for patch in drawn(bars=4) if to_hex(patch.get_facecolor()) == AMBER]
    assert len(boxes) == 4
    assert len([patch for patch in drawn(bars=3) if to_hex(patch.get_facecolor()) == AMBER]) == 8
    assert not [patch for patch in drawn(phrase=None) if to_hex(patch.get_facecolor()) == AMBER]


def test_pictures_are_written_in_both_forms(tmp_path: Path):
    song = melody()
    write_roll(tmp_path / "a.png", song, song.position == 0)
    with Image.open(tmp_path / "a.png") as picture:
        colours = {tuple(row) for row in np.asarray(picture.convert("RGB")).reshape(-1, 3)[::3].tolist()}
    assert tuple(bytes.fromhex(VERMILLION[1:])) in colours
    assert (255, 255, 255) in colours
    write_roll(tmp_path / "a.svg", song, song)
    assert "<svg" in (tmp_path / "a.svg").read_text()
    before = (tmp_path / "a.svg").read_bytes()
    write_roll(tmp_path / "a.svg", song, song)
    assert (tmp_path / "a.svg").read_bytes() == before


@pytest.mark.parametrize("title", ["茉莉花", "Xiao n\u0081xu", "cost: $5_x"])
def test_a_title_may_be_in_any_script(title: str, tmp_path: Path):
    song = replace(melody(), about={"title": title})
    write_roll(tmp_path / "a.png", song)
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert roll_figure("x", "x", song).alt


def test_a_figure_says_what_it_shows():
    song = melody()
    figure = roll_figure("roll", "A tune", song, song.position == 0)
    assert figure.n == f"{len(song)} notes, {int((song.position == 0).sum())} of the skeleton"
    assert str(song.key) in figure.alt
    assert "4 phrases" in figure.alt
    assert "unknown phrases" in roll_figure("roll", "A tune", song.with_phrases(None)).alt


def test_what_cannot_be_drawn_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"a picture ends in \.png or \.svg; rename it"):
        write_roll(tmp_path / "a.gif", melody())
    with pytest.raises(DataError, match="name another place"):
        write_roll(tmp_path / "none" / "a.png", melody())
    song = melody()
    long = replace(song, bars=np.arange(0, song.end, 6))
    with pytest.raises(DataError, match="rows of 1 bars, over 60; cut it"):
        write_roll(tmp_path / "a.png", long, bars=1)
