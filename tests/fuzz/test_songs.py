"""Song files: JSON of our own and of data sets, kern, ABC in every reader of it, and MIDI as songs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import strategies as st

from data.music.abc_books import read_book
from data.music.chorales import Chorales
from data.music.essen import EssenSongs
from data.music.files import read_file
from data.music.folder import FolderSongs
from data.music.kern import read_kern
from data.music.pop909 import Pop909Songs
from data.music.song_files import as_json, read_songs
from data.simulate.melodies import GeneratedSongs
from tests.fuzz.damage import ODD_TEXT, damaged, files, json_files, zipped
from tests.fuzz.test_pairs import ABC_PIECES, midi
from tests.fuzz.tried import Tried, law

POP = {"id": "001", "key": "Gb:maj\nF:min", "tempo": "90", "phrases1": "i1A2", "phrases2": "A3"}
POP = {**POP, "melody": [[0, 16], [60, 4], [62, 12], [64, 8], [0, 2], [65, 6]]}
STEPS = [[67, 60, 52, 48], [67, 60, 52, 48], [-1, 62, 55, 47]]
SONG = as_json(GeneratedSongs(songs=4).load().songs[0])
KERN = b"**kern\n*M3/4\n*k[b-]\n*g:\n=1-\n{4g\n8.a\n16b-}\n4r\n=2\n2cc;\n4dd\n==\n*-\n"

HAN = """X:1
T:Xiao diao
N:Zhongguo
O:China, Shanxi
R:xiaodiao
M:2/4
L:1/16
K:G
D4G2A2 | B4A2G2 | A4E4 |
G2A2B2d2 | e4d4 | (3B2A2G2 [M:3/4] G4z4-G4 |]

X:2
T:Tied, dotted, repeated
M:6/8
L:1/8
Q:1/4=90
K:Bb
|: A>B c2-c2 | _d^f=g z3 :| [1 A6 |
V:1
w: la la
B,,2 c'<d' [L:1/16] ABcd | Z2 |
""".encode("latin-1")
MARKS = "A' b, (3abc [K:Dm] [V:2] [I:x] |: :| [1 M:C M:none L:1/0 K:none K:H w:la % !f! {gb} ~ `"


@st.composite
def books(draw: st.DrawFn) -> bytes:
    """A nearly good ABC book: damaged, with lines moved and signs put in, in either encoding."""
    if draw(st.booleans()):
        return draw(files([HAN]))
    lines = HAN.decode("latin-1").split("\n")
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(["sign", "sign", "swap", "lose", "again", "end"]))
        if how == "sign":
            middle = draw(st.integers(0, len(lines[at])))
            sign = draw(st.sampled_from([*MARKS.split(), *ABC_PIECES]) | ODD_TEXT)
            lines[at] = lines[at][:middle] + sign + lines[at][middle:]
        elif how == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif how == "lose" and len(lines) > 1:
            del lines[at]
        elif how == "again":
            lines.insert(at, lines[at])
        elif how == "end":
            lines[at] += "\\"
    return "\n".join(lines).encode(draw(st.sampled_from(["utf-8", "latin-1", "utf-16"])), "replace")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("songs")


@law(content=json_files([POP, {**POP, "id": "002"}]))
def test_pop909(content: bytes, place: Path, tried: Tried):
    path = place / "pop.json"
    path.write_bytes(content)
    tried(lambda: Pop909Songs(file=str(path)).load())


@law(content=json_files({"train": [STEPS, STEPS], "valid": [STEPS], "test": [STEPS]}))
def test_chorales(content: bytes, place: Path, tried: Tried):
    path = place / "chorales.json"
    path.write_bytes(content)
    tried(Chorales(str(path)).load)


@pytest.mark.unchecked  # columns of unequal length are refused by the reader, after the shape checker
@law(content=json_files({"ticks_per_quarter": 24, "songs": [SONG]}))
def test_songs(content: bytes, place: Path, tried: Tried):
    path = place / "songs.json"
    path.write_bytes(content)
    tried(read_songs, path)
    tried(lambda: EssenSongs(notes=str(path)).load())


@law(content=files([KERN]))
def test_kern(content: bytes, place: Path, tried: Tried):
    path = place / "song.krn"
    path.write_bytes(content)
    tried(read_kern, path)


@law(content=books())
def test_abc_books(content: bytes, place: Path, tried: Tried):
    path = place / "book.abc"
    path.write_bytes(content)
    for tune in (tried(read_book, path) or {}).values():
        tried(tune.melody, "song")
        tried(tune.melody, "song", False)
    tried(read_file, path)


@law(
    han=books(),
    name=st.sampled_from(["han1.abc", "../han1.abc", "erk/", "erk1.abc", "han\x00.abc"]),
    torn=st.booleans(),
)
def test_zips_of_abc(han: bytes, name: str, torn: bool, place: Path, tried: Tried):
    path = place / "essen.zip"
    path.write_bytes(zipped({name: han, "han2.abc": HAN}))
    if torn:
        path.write_bytes(path.read_bytes()[: len(han)])
    for culture in ("han", "german"):
        tried(lambda culture=culture: EssenSongs(culture, notes=str(path), wrapped="drop").load())


@law(data=st.data())
def test_packed_abc(data: st.DataObject, place: Path, tried: Tried):
    path = place / "packed.zip"
    path.write_bytes(data.draw(damaged([zipped({"han1.abc": HAN})])))
    tried(lambda: EssenSongs(notes=str(path)).load())


@law(abc=books(), tune=files([midi()]), kern=files([KERN]))
def test_folders_of_songs(abc: bytes, tune: bytes, kern: bytes, place: Path, tried: Tried):
    folder = place / "own"
    folder.mkdir(exist_ok=True)
    for name, content in (("a.abc", abc), ("b.mid", tune), ("c.krn", kern)):
        (folder / name).write_bytes(content)
    tried(FolderSongs(str(folder)).load)
