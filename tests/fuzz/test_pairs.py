"""Captions, texts, melodies, tunes and tokenizers."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
from hypothesis import strategies as st
from PIL import Image

from data.music.abc import tunes
from data.pairs.arrays import Genes
from data.pairs.captions import Captions, ImageCaptions
from data.pairs.folk import FolkPairs
from data.pairs.matched import MatchedPairs
from data.pairs.melodies import read_melody
from data.pairs.sources import Texts
from data.text.tokenizer import Tokenizer
from tests.fuzz.damage import ODD_TEXT, files, json_files, table_files, trees
from tests.fuzz.tried import Tried, law

TABLE = [["image", "caption", "split", "licence"], *([f"{k}.png", f"a {k}", "train", "CC0"] for k in range(4))]
LINES = [dict(zip(TABLE[0], row, strict=True)) for row in TABLE[1:]]
TUNE = b"X:1\nT:A song\nM:3/4\nL:1/8\nK:Gm\nA2 ^B,/2 c'- c' | z2 _d =e3/4 (f |\n% end\n\nX:2\nK:C\nCDEF|\n"
SONGS = {"file": "a.abc", "x": 1, "split": "train", "caption": "a song", "title": "Song", "region": "Alsace"}
SONGS = {**SONGS, "metre": "3/4", "key": "G minor", "functions_en": ["lullaby"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for k in range(4):
        Image.new("RGB", (8, 8), (40 * k, 0, 0)).save(folder / f"{k}.png")
    return folder


@law(made=table_files(TABLE[0], TABLE[1:], [".csv", ".tsv"]))
def test_captions(made: tuple[str, bytes], place: Path, tried: Tried):
    path = place / f"captions{made[0]}"
    path.write_bytes(made[1])
    tried(ImageCaptions(str(path), side=8).load)


@st.composite
def json_lines(draw: st.DrawFn) -> bytes:
    """Nearly good JSON lines."""
    rows = [draw(trees(row)) for row in LINES]
    content = "\n".join(map(json.dumps, rows)).encode()
    return draw(files([content])) if draw(st.integers(0, 3)) == 0 else content


@law(content=json_lines())
def test_captions_in_json_lines(content: bytes, place: Path, tried: Tried):
    path = place / "captions.jsonl"
    path.write_bytes(content)
    tried(ImageCaptions(str(path), side=8).load)


@law(content=files([b"a red square\na blue one\n"]))
def test_captions_beside_pictures(content: bytes, place: Path, tried: Tried):
    folder = place / "beside"
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "a.txt").write_bytes(content)
    tried(ImageCaptions(str(folder), side=8).load)


@law(made=table_files(["id", "caption"], [["1", "a"], ["2", "b"]], [".csv", ".tsv"]), lines=files([b"one\ntwo\n"]))
def test_texts_and_captions_of_them(made: tuple[str, bytes], lines: bytes, place: Path, tried: Tried):
    table, text = place / f"texts{made[0]}", place / "texts.txt"
    table.write_bytes(made[1])
    text.write_bytes(lines)
    tried(Texts(str(table)).read)
    tried(Texts(str(text)).read)
    tried(Captions(Texts(str(text)), str(table), item="id").load)


@law(made=table_files(["id", "A", "B"], [["1", "0.5", "2"], ["2", "", "1"]], [".csv", ".tsv"]))
def test_tables_of_genes_as_items(made: tuple[str, bytes], place: Path, tried: Tried):
    path = place / f"genes{made[0]}"
    path.write_bytes(made[1])
    tried(lambda: Genes(str(path)).read().side.load([0]))


PAIRS = [["left", "right", "split"], ["1", "1", "train"], ["2", "1", ""]]


@law(made=table_files(PAIRS[0], PAIRS[1:], [".csv", ".tsv"]))
def test_tables_of_pairs(made: tuple[str, bytes], place: Path, tried: Tried):
    path, text = place / f"pairs{made[0]}", place / "lines.txt"
    path.write_bytes(made[1])
    text.write_text("one\ntwo\nthree\n")
    tried(MatchedPairs(Texts(str(text)), Texts(str(text)), str(path)).load)


def midi() -> bytes:
    made = pretty_midi.PrettyMIDI(initial_tempo=90)
    for name, base in (("melody", 60), ("bass", 40)):
        track = pretty_midi.Instrument(0, name=name)
        track.notes += [pretty_midi.Note(80, base + k, k / 2, k / 2 + 0.5) for k in range(6)]
        made.instruments.append(track)
    made.time_signature_changes.append(pretty_midi.TimeSignature(3, 4, 0))
    out = io.BytesIO()
    made.write(out)
    return out.getvalue()


@law(content=files([midi()]))
def test_melodies(content: bytes, place: Path, tried: Tried):
    path = place / "odd.mid"
    path.write_bytes(content)
    notes = tried(read_melody, path)
    assert notes is None or np.isfinite(notes).all()


_SIGNS = "A b z ^ _ = , ' / 0 2 99999 | - X: K: L: M: Gm H 1/0 1 ( [CE] % { < > ~ ٣ 1/8/2"
ABC_PIECES = [*_SIGNS.split(), "X:1\n", "\n", " "]


@law(content=st.one_of(files([TUNE]), st.lists(st.sampled_from(ABC_PIECES)).map(lambda made: "".join(made).encode())))
def test_tunes(content: bytes, tried: Tried):
    found = tried(tunes, content.decode("latin-1"))
    for tune in (found or {}).values():
        notes = tried(tune.notes)
        assert notes is None or np.isfinite(notes).all()


@law(content=json_files(SONGS), tune=files([TUNE]))
def test_folk_songs(content: bytes, tune: bytes, place: Path, tried: Tried):
    folder = place / "folk"
    folder.mkdir(exist_ok=True)
    table = folder / "songs.jsonl"
    table.write_bytes(content.replace(b"\n", b" ") + b"\n")
    (folder / "a.abc").write_bytes(tune)
    tried(FolkPairs(str(table), str(folder)).load)


@law(state=trees({"merges": [[98, 99], [257, 100], [1, 2]]}), text=ODD_TEXT)
def test_tokenizers(state: object, text: str, tried: Tried):
    restored = tried(Tokenizer.restored, state)
    if restored is not None:
        restored.decode(restored.encode(text).ids)


@law(texts=st.lists(st.text(max_size=40), max_size=6))
def test_any_text_is_written_and_read_back(texts: list[str], tried: Tried):
    tokenizer = Tokenizer.learn(texts, 300)
    for text in texts:
        tried(lambda text=text: tokenizer.decode(tokenizer.encode(text).ids))
