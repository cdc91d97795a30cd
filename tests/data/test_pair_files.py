"""Pairs from the user's own files: what cannot be read is named in one line each, and the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pretty_midi
import pytest
import torch
from PIL import Image

from data.errors import DataError
from data.pairs.arrays import Genes, SlideFeatures, Vectors
from data.pairs.captions import Captions, ImageCaptions
from data.pairs.items import PairSource
from data.pairs.matched import EmbeddingPairs, MatchedPairs, families
from data.pairs.melodies import read_melody
from data.pairs.pictures import decoded, read_picture
from data.pairs.sources import MelodyFiles, PictureFiles, Texts
from data.pairs.tables import read_rows


def flat(colour: tuple[int, ...], size: tuple[int, int] = (40, 20), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two good pictures, an animation, a torn one, one that is no picture, one in a folder below."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    flat((255, 0, 0)).save(folder / "red.png")
    flat((0, 0, 255)).save(folder / "more" / "blue.jpg")
    flat((0, 255, 0)).save(
        folder / "moving.gif", save_all=True, append_images=[flat((255, 255, 0)), flat((0, 255, 255))]
    )
    whole = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(whole).save(folder / "torn.png")
    (folder / "torn.png").write_bytes((folder / "torn.png").read_bytes()[:2000])
    (folder / "text.png").write_text("no picture")
    return folder


def test_pictures_that_cannot_be_read_are_named_and_the_rest_goes_on(photos: Path):
    told: list[tuple[int, int]] = []
    found = PictureFiles(str(photos), side=8).read(progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (5, 5)
    assert found.side.ids == ["more/blue.jpg", "moving.gif", "red.png"]
    assert len(found.notes) == 3
    said = "\n".join(found.notes)
    assert "text.png: not readable as a picture (cannot identify" in said
    assert "torn.png: not readable as a picture" in said
    assert "moving.gif: animated, the first of 3 frames is used" in said
    colours = found.side.load([2, 1])[:, :, 4, 4]
    np.testing.assert_allclose(colours, [[255, 0, 0], [0, 255, 0]], atol=3)


def test_a_folder_without_a_picture_says_so(tmp_path: Path):
    (tmp_path / "a.png").write_text("nothing")
    with pytest.raises(DataError, match=r"no image can be used here .*a.png: not readable as a picture"):
        PictureFiles(str(tmp_path)).read()


def test_transparent_pictures_stand_on_white_and_turned_ones_upright(tmp_path: Path):
    flat((0, 0, 0, 0), mode="RGBA").save(tmp_path / "clear.png")
    assert (read_picture(tmp_path / "clear.png", 4) == 255).all()
    halves = flat((255, 255, 255), (2, 2))
    halves.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned by a quarter.
    halves.save(tmp_path / "turned.png", exif=exif)
    upright = read_picture(tmp_path / "turned.png", 2)
    assert (upright[:, 0, 1] == 0).all()
    assert (upright[:, 0, 0] == 255).all()


def test_crop_fills_and_pad_keeps(tmp_path: Path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    crop, pad = (read_picture(tmp_path / "wide.png", 10, fit) for fit in ("crop", "pad"))
    assert (crop[0, 5] >= 190).all()
    assert (pad[0, 0] == 255).all()
    assert pad[0, 5, 0] < 10
    np.testing.assert_array_equal(decoded((tmp_path / "wide.png").read_bytes()), wide.transpose(2, 0, 1))


def test_sixteen_bit_pictures_are_stretched(tmp_path: Path):
    ramp = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    picture = read_picture(tmp_path / "deep.png", 8)
    assert (picture.min(), picture.max()) == (0, 255)


def written(path: Path, rows: list[dict[str, object]]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        pd.DataFrame(rows).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl"])
def test_captions_of_a_table(photos: Path, name: str):
    rows: list[dict[str, object]] = [
        {"image": "red.png", "caption": "a red  square", "split": "train", "licence": "CC0", "mood": "warm"},
        {"image": "red.png", "caption": "red", "split": "train", "licence": "CC0", "mood": "warm"},
        {"image": "more/blue.jpg", "caption": "blue", "split": "validation", "licence": "MIT", "mood": None},
        {"image": "moving.gif", "caption": " ", "split": "test", "licence": None, "mood": None},
        {"image": "nowhere.png", "caption": "gone", "split": "test", "licence": None, "mood": None},
    ]
    pairs = ImageCaptions(written(photos / name, rows), side=8).load()
    assert pairs.left.ids == ["red.png", "more/blue.jpg"]
    assert pairs.right.load(pairs.matches[0]) == ["a red square", "red"]
    assert pairs.table["split"].tolist() == ["train", "val"]
    assert pairs.attributes == ("mood",)
    assert pairs.table["mood"].tolist() == ["warm", None]
    assert pairs.attribution() == ["CC0", "MIT"]
    said = "\n".join(pairs.account)
    assert "the caption of moving.gif is empty and left out" in said
    assert "nowhere.png: no such picture" in said


def test_captions_beside_their_pictures(photos: Path):
    (photos / "red.txt").write_text("a red square\nred\n")
    (photos / "more" / "blue.txt").write_text("a blue square")
    pairs = ImageCaptions(str(photos), side=8).load()
    assert [pairs.right.load(own) for own in pairs.matches] == [["a blue square"], ["a red square", "red"]]
    assert "the caption of moving.gif is empty and left out" in "\n".join(pairs.account)


def test_one_caption_of_several_pictures_is_one_item(photos: Path):
    rows: list[dict[str, object]] = [
        {"image": image, "caption": "a colour", "split": "train"} for image in ("red.png", "more/blue.jpg")
    ]
    pairs = ImageCaptions(written(photos / "c.csv", rows), side=8).load()
    assert len(pairs.right) == 1
    assert pairs.partners == [(0, 1)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,words\na.png,b\n", r"no column 'caption' \(there are image, words\)"),
        ("image,caption,split\nred.png,b,tset\n", "split 'tset' of red.png; expected one of train, val, test"),
        ("image,caption\nred.png,\n", r"no item has a caption \(.*the caption of red.png is empty"),
        ("", "not readable as a table"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_one_line(photos: Path, content: str, said: str):
    (photos / "c.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        ImageCaptions(str(photos / "c.csv"), side=8).load()


def test_a_broken_line_of_json_is_named(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text('{"caption": "a"}\n{"caption": \n')
    with pytest.raises(DataError, match=r"t.jsonl line 2: not readable as JSON"):
        Texts(str(tmp_path / "t.jsonl")).read()


@pytest.mark.parametrize("text", ["", "  ", "\u200b", "\u00a0\u2060\ufeff"])
def test_a_text_of_invisible_characters_is_empty(text: str, tmp_path: Path):
    (tmp_path / "t.csv").write_text(f"id,caption\na,{text}\nb,\u2603\n", encoding="utf-8")
    found = Texts(str(tmp_path / "t.csv")).read()
    assert found.side.ids == ["b"]
    assert found.notes == [f"{tmp_path}/t.csv: text a is empty and left out"]


def test_one_file_that_cannot_be_used_is_named_alone(tmp_path: Path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"^\S+bad.png: not readable as a picture \(.*\); replace or remove it$"):
        PictureFiles(str(tmp_path / "bad.png")).read()


def test_a_line_of_json_ends_at_a_line_feed_alone(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"image": "a\u2028b\x85c"}\r\n\n{"image": "d"}\n', encoding="utf-8")
    assert read_rows(path)["image"].tolist() == ["a\u2028b\x85c", "d"]


def test_texts_under_keys(tmp_path: Path):
    rows: list[dict[str, object]] = [
        {"id": "a", "caption": "one"},
        {"id": "a", "caption": "two"},
        {"id": "b", "caption": ""},
        {"id": "c", "caption": "four"},
    ]
    found = Texts(written(tmp_path / "t.csv", rows)).read()
    assert (found.side.ids, found.side.load([1, 0])) == (["a", "c"], ["four", "one"])
    assert [note.split(": ")[1] for note in found.notes] == [
        "id a stands twice, the first is kept",
        "text b is empty and left out",
    ]
    (tmp_path / "lines.txt").write_text("one\n\nthree\n")
    assert Texts(str(tmp_path / "lines.txt")).read().side.ids == ["1", "3"]
    assert Texts(str(tmp_path / "t.csv")).read(["c", "z"]).notes[-1].endswith("no text z")


def midi(path: Path, *tracks: tuple[str, list[tuple[int, float, float]], bool], tempo: float = 120) -> Path:
    song = pretty_midi.PrettyMIDI(initial_tempo=tempo)
    for name, rows, drums in tracks:
        track = pretty_midi.Instrument(0, is_drum=drums, name=name)
        track.notes = [pretty_midi.Note(90, pitch, start, end) for pitch, start, end in rows]
        song.instruments.append(track)
    song.write(str(path))
    return path


def test_a_melody_is_the_named_track_or_the_highest_in_quarters(tmp_path: Path):
    low, high = [(40, 0.0, 1.0)], [(72, 0.0, 1.0), (74, 1.0, 1.5)]
    song = midi(tmp_path / "a.mid", ("piano", low, False), ("flute", high, False), ("drums", [(90, 0, 1)], True))
    np.testing.assert_allclose(read_melody(song), [[72, 0, 2], [74, 2, 1]], atol=1e-2)
    named = midi(tmp_path / "b.mid", ("MELODY", low, False), ("flute", high, False), tempo=60)
    np.testing.assert_allclose(read_melody(named), [[40, 0, 1]], atol=1e-2)
    midi(tmp_path / "c.mid", ("drums", [(40, 0, 1)], True))
    (tmp_path / "d.mid").write_text("no music")
    found = MelodyFiles(str(tmp_path)).read()
    assert found.side.ids == ["a.mid", "b.mid"]
    assert "c.mid: no pitched note in it" in found.notes[0]
    assert "d.mid: not readable as MIDI" in found.notes[1]


def test_vectors_with_nan_and_repeated_ids_are_left_out(tmp_path: Path):
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    values[1, 2] = np.nan
    np.savez(tmp_path / "v.npz", vectors=values, ids=["a", "b", "c", "a"])
    found = Vectors(str(tmp_path / "v.npz")).read()
    assert found.side.ids == ["a", "c"]
    np.testing.assert_array_equal(found.side.load([1]), values[2:3])
    assert [note.split(": ")[1] for note in found.notes] == [
        "vector b holds NaN or infinity and is left out",
        "id a stands twice, the first is kept",
    ]
    np.save(tmp_path / "w.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"float64 of shape \(3,\) with 3 ids; expected numbers"):
        Vectors(str(tmp_path / "w.npy")).read()


def test_embeddings_are_paired_row_by_row_without_the_broken_ones(tmp_path: Path):
    left, right = np.random.default_rng(0).normal(size=(2, 50, 4)).astype(np.float32)
    right[7] = np.inf
    for name, values in (("l", left), ("r", right)):
        np.save(tmp_path / f"{name}.npy", values)
    pairs = EmbeddingPairs(str(tmp_path / "l.npy"), str(tmp_path / "r.npy")).load()
    assert len(pairs.left) == len(pairs.right) == 49
    assert "7" not in pairs.left.ids
    rows = [row for own in pairs.matches for row in own]
    np.testing.assert_array_equal(pairs.right.load(rows), np.delete(right, 7, axis=0))
    np.testing.assert_array_equal(pairs.left.load(range(49)), np.delete(left, 7, axis=0))
    assert "7 has no partner and is left out" in "\n".join(pairs.account)


def test_a_table_pairs_any_two_modalities(photos: Path, tmp_path: Path):
    np.savez(tmp_path / "v.npz", vectors=np.eye(3), ids=["x", "y", "z"])
    rows: list[dict[str, object]] = [
        {"left": "x", "right": "red.png", "kind": "warm"},
        {"left": "x", "right": "moving.gif", "kind": "warm"},
        {"left": "z", "right": "moving.gif", "kind": "cold"},
        {"left": "y", "right": "torn.png", "kind": "cold"},
    ]
    source: PairSource = MatchedPairs(
        Vectors(str(tmp_path / "v.npz"), modality="fmri"),
        PictureFiles(str(photos), side=8),
        written(tmp_path / "p.csv", rows),
    )
    pairs = source.load()
    assert (pairs.left.name, pairs.left.ids) == ("fmri", ["x", "z"])
    assert [[pairs.right.ids[row] for row in own] for own in pairs.matches] == [
        ["red.png", "moving.gif"],
        ["moving.gif"],
    ]
    assert pairs.table["kind"].tolist() == ["warm", "cold"]
    assert len(set(pairs.table["split"])) == 1
    said = "\n".join(pairs.account)
    assert "y has no partner and is left out" in said
    assert "torn.png: not readable" in said
    assert source.load() is pairs


def test_linked_items_are_one_family():
    assert len(set(families([["a"], ["b", "a"], ["c", "b"]]))) == 1
    assert len(set(families([["a"], ["b"], ["c", "d"], ["d"]]))) == 3


def test_genes_and_slides_under_their_keys(tmp_path: Path):
    (tmp_path / "g.csv").write_text("patient,TP53,MYC\np1,1.5,\np2,,\np3,0,2\n")
    genes = Genes(str(tmp_path / "g.csv")).read()
    assert genes.side.ids == ["p1", "p3"]
    np.testing.assert_array_equal(genes.side.load([0]), np.array([[1.5, np.nan]], np.float32))
    (tmp_path / "h.csv").write_text("patient,TP53\np1,high\n")
    with pytest.raises(DataError, match="every column but the first must hold numbers"):
        Genes(str(tmp_path / "h.csv")).read()
    slides = tmp_path / "slides"
    slides.mkdir()
    torch.save(torch.ones(5, 4), slides / "s1.pt")
    torch.save(torch.zeros(2, 4), slides / "s2.pt")
    (tmp_path / "reports.csv").write_text("item,caption\ns2.svs,no tumour\ns1.svs,tumour\ns3.svs,lost\n")
    pairs = Captions(SlideFeatures(str(slides)), str(tmp_path / "reports.csv")).load()
    assert pairs.left.ids == ["s2.svs", "s1.svs"]
    assert [item.shape for item in pairs.left.load([0, 1])] == [(2, 4), (5, 4)]
    assert pairs.right.load(pairs.matches[1]) == ["tumour"]
    assert "no features of slide s3" in "\n".join(pairs.account)
