"""Data sets: imported whole or not at all, verified file by file, downloaded only when asked."""

from __future__ import annotations

import http.client
import io
import shutil
import socket
from pathlib import Path

import pytest

from data import sources
from data.errors import DataError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("FUSION_DATA", str(folder))
    return folder


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of two files, one with an address, and a folder that holds it."""
    folder = tmp_path / "given" / "tiny"
    (folder / "sub").mkdir(parents=True)
    lines = ["path\tbytes\tsha256\turl"]
    import hashlib

    for name, text in (("a.txt", "alpha"), ("sub/b.txt", "beta")):
        (folder / name).write_text(text)
        url = (folder / name).as_uri() if name == "a.txt" else ""
        lines.append(f"{name}\t{len(text)}\t{hashlib.sha256(text.encode()).hexdigest()}\t{url}")
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "tiny.tsv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(sources, "_MANIFESTS", manifests)
    monkeypatch.setattr(sources, "SOURCES", (sources.DataSource("tiny", "two files", "nowhere", "none"),))
    return folder


@pytest.mark.parametrize("name", [known.name for known in sources.SOURCES])
def test_the_real_data_sets_agree_with_their_manifests(shared_data: Path, name: str):
    assert sources.verify(name, shared_data / sources.source(name).folder.name) == []


def test_every_file_of_the_real_data_sets_is_in_a_manifest(shared_data: Path):
    for known in (known for known in sources.SOURCES if not known.within):
        there = {
            p.relative_to(shared_data / known.name).as_posix()
            for p in (shared_data / known.name).rglob("*")
            if p.is_file()
        }
        assert there - {"README.md"} == {file.path for file in known.files}


def test_every_data_set_says_where_it_is_from_and_under_which_terms():
    for known in sources.SOURCES:
        assert known.what
        assert known.address
        assert known.licence
        assert known.size == sum(file.size for file in known.files) > 0


def test_a_part_is_imported_beside_the_other_parts(home: Path, shared_data: Path):
    essen, jsb = sources.source("essen"), sources.source("jsb")
    assert sources.import_from("jsb", shared_data) == home / "music"
    assert (jsb.here, essen.here) == (True, False)
    sources.import_from("essen", shared_data / "music")
    assert (jsb.here, essen.here) == (True, True)
    assert sources.verify("essen") == sources.verify("jsb") == []
    whole = {file.path: file for file in sources.source("music").files}
    parts = [file for known in sources.SOURCES if known.within == "music" for file in known.files]
    assert {file.path: file for file in parts} == whole
    assert len(parts) == len(whole)


@pytest.mark.parametrize("parent", [True, False])
def test_an_import_copies_everything(home: Path, tiny: Path, parent: bool):
    seen: list[str] = []
    where = sources.import_from("tiny", tiny.parent if parent else tiny, progress=seen.append)
    assert where == home / "tiny"
    assert seen == ["a.txt", "sub/b.txt"]
    assert sources.verify("tiny") == []
    assert [p.name for p in home.iterdir()] == ["tiny"]
    assert sources.resolve("tiny/sub/b.txt").read_text() == "beta"


def test_a_broken_copy_is_named_file_by_file_and_nothing_is_imported(home: Path, tiny: Path):
    (tiny / "a.txt").write_text("alphA")
    (tiny / "sub" / "b.txt").unlink()
    with pytest.raises(DataError, match=r"2 of 2 files of tiny are missing or differ, nothing was imported") as told:
        sources.import_from("tiny", tiny, progress=(said := []).append)
    assert said == ["a.txt: content differs (SHA-256)", "sub/b.txt: missing"]
    assert "(a.txt: content differs (SHA-256); sub/b.txt: missing). Complete the copy" in str(told.value)
    assert not home.exists()


def test_verify_names_each_fault_of_the_local_copy(home: Path, tiny: Path):
    assert [str(f) for f in sources.verify("tiny")] == ["a.txt: missing", "sub/b.txt: missing"]
    sources.import_from("tiny", tiny)
    (home / "tiny" / "a.txt").write_text("alpha and more")
    assert [str(f) for f in sources.verify("tiny")] == ["a.txt: 14 bytes, expected 5"]


def test_a_failed_import_leaves_the_earlier_one(home: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    sources.import_from("tiny", tiny)

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        sources.import_from("tiny", tiny)
    assert sources.verify("tiny") == []
    assert [p.name for p in home.iterdir()] == ["tiny"]


def test_fetch_takes_what_has_an_address_and_names_the_rest(home: Path, tiny: Path):
    assert [str(f) for f in sources.fetch("tiny")] == ["sub/b.txt: missing"]
    assert (home / "tiny" / "a.txt").read_text() == "alpha"
    (tiny / "a.txt").unlink()
    assert len(sources.fetch("tiny")) == 1


def test_a_changed_official_copy_is_not_kept(home: Path, tiny: Path):
    (tiny / "a.txt").write_text("omega")
    with pytest.raises(DataError, match=r"content differs \(SHA-256\); the official copy has changed"):
        sources.fetch("tiny")
    assert list((home / "tiny").iterdir()) == []


def test_nothing_but_fetch_opens_a_connection(home: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(sources.urllib.request, "urlopen", refused)
    sources.import_from("tiny", tiny)
    sources.verify("tiny")
    sources.resolve("tiny/a.txt")


def test_an_address_without_an_answer_says_what_else_to_do(home: Path, tiny: Path):
    (tiny / "a.txt").unlink()
    with pytest.raises(DataError, match=r"a\.txt: .*; try again, or `fusion data import tiny --from FOLDER`"):
        sources.fetch("tiny")


def test_an_answer_that_breaks_off_is_one_line_and_leaves_nothing(
    home: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    class Broken(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise http.client.IncompleteRead(b"half")

    monkeypatch.setattr(sources.urllib.request, "urlopen", lambda *_, **__: Broken())
    with pytest.raises(DataError, match=r"a\.txt: .*; try again, or `fusion data import tiny --from FOLDER`"):
        sources.fetch("tiny")
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_unknown_names_and_places_are_answered(home: Path, tiny: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"no data set 'tinny'; did you mean 'tiny'\? \(there are tiny\)"):
        sources.source("tinny")
    with pytest.raises(DataError, match=r"no such folder to import tiny from"):
        sources.import_from("tiny", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"not under .*home; `fusion data fetch tiny` downloads 1 of its 2 files; get"):
        sources.resolve("tiny/a.txt")


def test_what_can_be_fetched_is_offered_and_nothing_else():
    said = {known.name: known.how_to_get for known in sources.SOURCES}
    ways = {known.name: known.way for known in sources.SOURCES}
    assert said["ett"] == (
        "`fusion data fetch ett` downloads it, `fusion data import ett --from FOLDER` takes a copy of yours"
    )
    assert said["tcga"].startswith("`fusion data fetch tcga` downloads 18 of its 63 files; get the others (")
    assert said["tcga"].endswith("CMTA, then `fusion data import tcga --from FOLDER`")
    assert "from https://github.com/{PyMVPA/PyMVPA, " in said["fmri"]
    assert "were prepared from https://github.com/cuthbertLab/music21" in said["essen"]
    for known in sources.SOURCES:
        assert known.how_to_get.isprintable()
        assert f"`fusion data import {known.name} --from FOLDER`" in known.how_to_get
        assert ("fusion data fetch" in known.how_to_get) == ("fetch" in known.way) == (known.fetchable > 0)
    assert (ways["ett"], ways["slides"], ways["jsb"]) == ("fetch or import", "fetch (2 of 3 files), import", "import")


def test_a_set_without_addresses_is_not_fetched(home: Path, shared_data: Path):
    with pytest.raises(DataError, match=r"jsb: none of its files can be downloaded, 2 are missing; its 2 files \("):
        sources.fetch("jsb")
    assert not home.exists()
    sources.import_from("jsb", shared_data)
    assert sources.fetch("jsb") == []


def test_an_import_completes_what_was_fetched(home: Path, tiny: Path):
    sources.fetch("tiny")
    (tiny / "a.txt").unlink()
    sources.import_from("tiny", tiny)
    assert sources.verify("tiny") == []
    (tiny / "a.txt").write_text("alphA")
    with pytest.raises(DataError, match="1 of 2 files of tiny"):
        sources.import_from("tiny", tiny)
    assert sources.verify("tiny") == []


def test_data_lives_in_the_user_s_cache_unless_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FUSION_DATA", str(tmp_path))
    assert sources.data_home() == tmp_path
    monkeypatch.delenv("FUSION_DATA")
    assert sources.data_home().name == "multimodal-fusion"
