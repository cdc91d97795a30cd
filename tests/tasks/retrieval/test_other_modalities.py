"""Every shipped config for files of one's own trains on them; their items are indexed and asked as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest

from data.errors import DataError
from tasks.experiment.folder import RunError
from tasks.experiment.signatures import ConfigError
from tasks.retrieval.build_index import Opened, build
from tasks.retrieval.explain import explained
from tasks.retrieval.search import How, Searcher, search
from tasks.retrieval.train import TASK
from tests.tasks.retrieval.command import retrieval

ITEMS, WIDTH = 48, 12
COLOURS = ("red", "blue", "green", "grey")


def coded(seed: int, width: int = WIDTH) -> np.ndarray:
    """An item per row; rows of one colour lie in one direction."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(7).normal(size=(len(COLOURS), width))
    return (directions[np.arange(ITEMS) % 4] + 0.1 * rng.normal(size=(ITEMS, width))).astype(np.float32)


def captions(path: Path, keys: Sequence[str]) -> None:
    """Each colour in some words, all splits in equal parts."""
    rows = [
        f"{key},a {COLOURS[at % 4]} thing of kind {at // 12},{('train', 'val', 'test', 'train')[at // 4 % 4]}"
        for at, key in enumerate(keys)
    ]
    path.write_text("\n".join(["item,caption,split", *rows]))


def brains(folder: Path) -> list[str]:
    np.save(folder / "samples.npy", coded(0))
    captions(folder / "captions.csv", [str(row) for row in range(ITEMS)])
    return [f"let.samples={folder}/samples.npy", f"let.captions={folder}/captions.csv", f"let.voxels={WIDTH}"]


def slides(folder: Path) -> list[str]:
    (folder / "features").mkdir()
    for row, code in enumerate(coded(0)):
        with h5py.File(folder / "features" / f"s{row}.h5", "w") as file:
            file["features"] = np.stack([code, code + 0.1, code - 0.1])
    captions(folder / "reports.csv", [f"s{row}" for row in range(ITEMS)])
    return [f"let.features={folder}/features", f"let.reports={folder}/reports.csv", f"let.patch_width={WIDTH}"]


def genes(folder: Path) -> list[str]:
    rows = [",".join([f"p{row}", *map(str, code)]) for row, code in enumerate(coded(0))]
    header = ",".join(["patient", *(f"g{column}" for column in range(WIDTH))])
    (folder / "genes.csv").write_text("\n".join([header, *rows]))
    captions(folder / "notes.csv", [f"p{row}" for row in range(ITEMS)])
    return [f"let.table={folder}/genes.csv", f"let.notes={folder}/notes.csv", f"left.groups={WIDTH}"]


def embeddings(folder: Path) -> list[str]:
    np.save(folder / "left.npy", coded(0))
    np.save(folder / "right.npy", coded(1, 8))
    places = [f"let.left={folder}/left.npy", f"let.right={folder}/right.npy"]
    return [*places, f"let.left_width={WIDTH}", "let.right_width=8"]


class Trained(NamedTuple):
    run: Path
    folder: Path


CASES: dict[str, tuple[Callable[[Path], list[str]], str, str]] = {
    "brains": (brains, "samples.npy", "7"),
    "slides": (slides, "features", "s7"),
    "genes": (genes, "genes.csv", "p7"),
    "embeddings": (embeddings, "left.npy", "7"),
}
SMALL = ("rivals=null", "trainer.max_epochs=1", "trainer.accelerator=cpu", "fit.batch_size=8", "fit.warmup=0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    found = {}
    for name, (made, _, _) in CASES.items():
        folder = tmp_path_factory.mktemp(name)
        narrow = ["left.widths=[16]"] if name in ("slides", "genes") else []
        assert TASK.train([f"retrieval/{name}"], [*made(folder), *SMALL, *narrow, f"runs={folder}/runs"]) == 0
        found[name] = Trained(folder / "runs" / "retrieval" / name, folder)
    return found


@pytest.mark.parametrize("name", CASES)
def test_items_are_indexed_from_files_and_found_by_themselves(name: str, trained: dict[str, Trained], tmp_path: Path):
    _, file, item = CASES[name]
    run, folder = trained[name]
    index, notes = build(Opened.of(run), str(folder / file), tmp_path / "idx", "left")
    assert (len(index), notes) == (ITEMS, [])
    itself = search(tmp_path / "idx", item, 1, side="left", draw=1).answers[0]
    assert itself.id == item
    assert itself.score == pytest.approx(1, abs=1e-5)
    assert itself.seen is not None, "its file is read again for a page"
    found = explained(run, item, 2)
    assert found.answers[0].seen is not None
    assert "<figure" in found.page.html()
    assert found.page.html().count('class="exhibit"') == (0 if name == "embeddings" else 2), (
        "only texts can be looked at"
    )


@pytest.mark.parametrize("name", ["brains", "slides", "genes"])
def test_a_text_finds_items_of_the_other_side(name: str, trained: dict[str, Trained], tmp_path: Path):
    build(Opened.of(trained[name].run), "collection:test", tmp_path / "idx", "left")
    assert len(search(tmp_path / "idx", "a red thing", 3).answers) == 3


def test_a_slide_asks_as_a_file_and_an_array_with_every_row(trained: dict[str, Trained], tmp_path: Path):
    run, folder = trained["slides"]
    build(Opened.of(run), str(folder / "features" / "s3.h5"), tmp_path / "slides", "left")
    assert search(tmp_path / "slides", str(folder / "features" / "s3.h5"), 1).answers[0].id == "s3"
    run, folder = trained["brains"]
    build(Opened.of(run), "collection", tmp_path / "brains", "left")
    rows = coded(0)[:3].copy()
    rows[1, 0] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    found = Searcher(tmp_path / "brains").ask(str(tmp_path / "rows.npy"), How(k=1))
    assert [one.answers[0].id for one in found] == ["0", "2"]
    assert found[0].notes == [f"{tmp_path}/rows.npy: vector 1 holds NaN or infinity and is left out"]
    with pytest.raises(DataError, match="2 queries in one file; ask a `Searcher`"):
        search(tmp_path / "brains", str(tmp_path / "rows.npy"))
    with pytest.raises(DataError, match="holds 2 items; a page explains one, give a file of one"):
        explained(run, str(tmp_path / "rows.npy"))


def test_several_queries_are_asked_together_and_a_bad_one_costs_a_line(
    trained: dict[str, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    idx = str(tmp_path / "idx")
    build(Opened.of(trained["brains"].run), "collection", Path(idx), "left")
    capsys.readouterr()
    assert retrieval(monkeypatch, "search", idx, "a red thing", "gone.npy", "7", "-k", "1", "--json") == 1
    said = capsys.readouterr()
    assert [one["query"] for one in json.loads(said.out)["queries"]] == ["a red thing", "7"]
    assert said.err.count("\n") == 1
    assert "gone.npy: no such file" in said.err
    assert retrieval(monkeypatch, "search", idx, "a red thing", "7", "-k", "1") == 0
    assert capsys.readouterr().out.splitlines()[0].split("\t") == ["query", "rank", "id", "score"]
    assert retrieval(monkeypatch, "search", idx, "red", "blue", "--report", str(tmp_path / "x.html")) == 2
    assert "a page shows one query, these are 2; ask one" in capsys.readouterr().err


def test_samples_of_another_width_are_named_before_any_unit_starts(trained: dict[str, Trained], tmp_path: Path):
    folder = trained["brains"].folder
    given = [f"let.samples={folder}/samples.npy", f"let.captions={folder}/captions.csv", f"runs={tmp_path}"]
    with pytest.raises(DataError, match="samples have 12 voxels, this encoder reads voxels=530"):
        TASK.train(["retrieval/brains"], given)
    with pytest.raises(ConfigError, match="left: TextTransformer reads text, but the left items of captions are fmri"):
        TASK.train(["retrieval/brains"], [*given, "left=TextTransformer"])
    assert not (tmp_path / "retrieval" / "brains" / "brains").exists()


def test_a_run_does_not_go_on_with_other_files_or_words(tmp_path: Path):
    given = [*slides(tmp_path), *SMALL, "left.widths=[16]", f"runs={tmp_path}/runs"]
    assert TASK.train(["retrieval/slides"], given) == 0
    assert TASK.train(["retrieval/slides"], given, resume=True) == 0
    reports = (tmp_path / "reports.csv").read_text()
    (tmp_path / "reports.csv").write_text(reports.replace("s0,a red", "s0,a rosy"))
    with pytest.raises(RunError, match=": texts: not what this run began with"):
        TASK.train(["retrieval/slides"], given, resume=True)
    (tmp_path / "reports.csv").write_text(reports)
    with h5py.File(tmp_path / "features" / "s0.h5", "w") as file:
        file["features"] = np.zeros((3, WIDTH), np.float32)
    with pytest.raises(RunError, match=": files: not what this run began with"):
        TASK.train(["retrieval/slides"], given, resume=True)
