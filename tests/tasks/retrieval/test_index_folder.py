"""Laws of an index on disk: it comes back as it was, an interrupted save leaves the old one, damage is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.errors import DataError
from tasks.experiment.folder import RunError
from tasks.retrieval import index_folder
from tasks.retrieval.index import Backend, Index, Settings
from tasks.retrieval.index_folder import load, save, verify
from tasks.retrieval.late_interaction import Query
from tests.tasks.retrieval.test_index import WIDTH, made, needs_faiss, queries, units

ASKING = queries(np.random.default_rng(11), 6)
BACKENDS = ["exact", *(pytest.param(kind, marks=needs_faiss) for kind in ("flat", "hnsw"))]


def answers(index: Index) -> list[Any]:
    return index.search(ASKING, 5, "towers")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", ["global", "tokens", "both"])
def test_a_saved_index_answers_as_before(score: Any, backend: Backend, tmp_path: Path):
    index = made(60, score, backend)
    index.remove(["i3", "i50"])
    rng = np.random.default_rng(5)
    index.update(
        ["i7"], units(rng, 1), [units(rng, 2)] if score != "global" else None, [{"what": "seven", "licence": "MIT"}]
    )
    save(index, tmp_path / "idx")
    again = load(tmp_path / "idx")
    assert again.settings == index.settings
    assert again.items.ids == index.items.ids
    assert again.about["i7"] == {"what": "seven", "licence": "MIT"}
    assert answers(again) == answers(index)
    assert verify(tmp_path / "idx") == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loaded_index_goes_on_growing(backend: Backend, tmp_path: Path):
    save(made(30, "tokens", backend), tmp_path / "idx")
    index, whole = load(tmp_path / "idx"), made(30, "tokens", backend)
    rng = np.random.default_rng(5)
    vectors, tokens = units(rng, 3), [units(rng, 2) for _ in range(3)]
    for one in (index, whole):
        one.remove(["i0", "i1"])
        one.add(["a", "b", "c"], vectors, tokens)
    save(index, tmp_path / "idx")
    assert answers(load(tmp_path / "idx")) == answers(whole)
    assert verify(tmp_path / "idx") == []


def test_ids_and_words_may_hold_any_character(tmp_path: Path):
    index = Index(Settings("towers", WIDTH))
    ids = ["a\u2028b", "c\x85d", "e\nf", '"g"', "h\\"]
    index.add(ids, units(np.random.default_rng(0), len(ids)), None, [{"text": item} for item in ids])
    save(index, tmp_path / "idx")
    again = load(tmp_path / "idx")
    assert again.items.ids == ids
    assert again.about == {item: {"text": item} for item in ids}


def test_half_precision_comes_back_bit_for_bit(tmp_path: Path):
    index = made(40, "both", precision="float16")
    save(index, tmp_path / "idx")
    again = load(tmp_path / "idx")
    assert (again.items.vectors == index.items.vectors).all()
    assert (again.items.tokens == index.items.tokens).all()
    assert again.items.tokens.dtype == np.float16


@pytest.mark.parametrize("at", ["vectors.npy", "tokens.npy", "items.jsonl", "manifest.json"])
def test_an_interrupted_save_leaves_the_old_index_whole(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "idx"
    index = made(20, "tokens")
    save(index, folder)
    before = answers(load(folder))
    index.remove(["i0", "i1", "i2"])

    def interrupted(path: Path, *content: Any) -> None:
        if path.name == at:
            path.with_suffix(".part").write_bytes(b"half")
            raise KeyboardInterrupt
        honest[content and isinstance(content[0], str)](path, *content)

    honest = {False: index_folder._put, True: index_folder.write_whole}
    monkeypatch.setattr(index_folder, "_put", interrupted)
    monkeypatch.setattr(index_folder, "write_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(index, folder)
    monkeypatch.undo()
    assert answers(load(folder)) == before
    assert verify(folder) == []
    save(index, folder)
    assert len(load(folder)) == 17
    assert [path.name for path in folder.glob("items-*")] == [
        json.loads((folder / "manifest.json").read_text())["arrays"]
    ]


def test_a_full_disk_is_one_line_and_the_old_index_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "idx"
    save(made(5), folder)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_folder, "_put", full)
    with pytest.raises(RunError, match=r"the disk is full; free some space\); what it held before is untouched"):
        save(made(9), folder)
    assert len(load(folder)) == 5


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda at: (at / "vectors.npy").unlink(), "vectors.npy: missing"),
        (lambda at: (at / "vectors.npy").write_bytes(b"short"), "vectors.npy: 5 bytes, expected"),
        (lambda at: _flip(at / "tokens.npy"), "tokens.npy: content differs"),
    ],
)
def test_damage_is_named(damage: Any, said: str, tmp_path: Path):
    folder = tmp_path / "idx"
    save(made(20, "tokens"), folder)
    damage(next(folder.glob("items-*")))
    [fault] = verify(folder)
    assert said in fault
    if "content" not in said:
        with pytest.raises(DataError, match="restore the folder or index the items again"):
            load(folder)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 64
    path.write_bytes(bytes(content))


def test_a_folder_that_is_no_index_is_left_alone(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds notes.txt, which is no part of an index; give another folder"):
        save(made(3), tmp_path)
    with pytest.raises(DataError, match=r"not an index \(no manifest.json\)"):
        load(tmp_path)
    save(made(3), tmp_path / "idx")
    manifest = json.loads((tmp_path / "idx" / "manifest.json").read_text())
    (tmp_path / "idx" / "manifest.json").write_text(json.dumps({**manifest, "version": 9}))
    with pytest.raises(DataError, match="version 9, this program reads 1"):
        load(tmp_path / "idx")


def test_two_writers_do_not_lose_each_other(tmp_path: Path):
    folder = tmp_path / "idx"
    save(made(5), folder)
    with index_folder.writing(folder):
        with pytest.raises(RunError, match="another process is writing this index; wait for it"):
            save(made(9), folder)
        assert len(load(folder)) == 5, "reading goes on"
    save(made(9), folder)
    assert len(load(folder)) == 9


def test_a_place_is_refused_before_anything_is_read_and_nothing_is_left_there(tmp_path: Path):
    (tmp_path / "notes.csv").write_text("mine")
    with pytest.raises(RunError, match=r"notes.csv: a file; an index is a folder, give another place"):
        save(made(3), tmp_path / "notes.csv")
    with pytest.raises(RunError, match=r"notes.csv/idx: cannot be written \(Not a directory\); give another place"):
        save(made(3), tmp_path / "notes.csv" / "idx")
    with pytest.raises(KeyboardInterrupt), index_folder.writing(tmp_path / "idx"):
        raise KeyboardInterrupt
    assert not (tmp_path / "idx").exists()


@needs_faiss
def test_mostly_removed_items_leave_the_structures_too(tmp_path: Path):
    index = made(100, "global", "hnsw")
    save(index, tmp_path / "idx")
    index.remove([f"i{at}" for at in range(60)])
    save(index, tmp_path / "idx")
    again = load(tmp_path / "idx")
    assert len(again.structures["vectors"]) == 40
    query = Query(torch.from_numpy(units(np.random.default_rng(1))), torch.empty(0, WIDTH))
    assert len(again.search([query], 40, "towers")[0]) == 40
    shutil.rmtree(tmp_path / "idx")
