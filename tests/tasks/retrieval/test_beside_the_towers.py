"""What a run may have beside its towers: a cross-encoder, prompts, one space per attribute; trained, indexed, asked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from data.errors import DataError
from tasks.experiment.folder import RunError
from tasks.experiment.signatures import ConfigError
from tasks.retrieval.build_index import Opened, build
from tasks.retrieval.index_folder import load, verify
from tasks.retrieval.results import read
from tasks.retrieval.search import search
from tasks.retrieval.space_index import build_spaces
from tasks.retrieval.space_tables import space_summary
from tasks.retrieval.space_unit import TrainedSpaces
from tasks.retrieval.train import TASK
from tests.tasks.retrieval.command import retrieval
from tests.tasks.retrieval.toy import save_picture, written

SPACES = {
    "embedders": {"query": "ConditionalEmbedder", "shared": "SharedEmbedder"},
    "width": 8, "hidden": 16, "heads": 2, "epochs": 3, "fit": {"batch_size": 16, "warmup": 2},
}  # fmt: skip
MORE = {
    "rivals": {},
    "rerank": {"top": 4, "negatives": 3, "batch_size": 8, "epochs": 1, "width": 16, "heads": 2},
    "prompts": ["{}", "a drawing of {}"],
    "spaces": SPACES,
    "trainer": {"max_epochs": 3, "accelerator": "cpu"},
}
RED = "a red quarter at the upper left"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    assert TASK.train([written(folder, **MORE)], seeds=[1]) == 0
    return folder / "runs" / "retrieval" / "hybrid"


@pytest.fixture(scope="module")
def spaces(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test pictures under both attributes."""
    folder = tmp_path_factory.mktemp("spaces") / "idx"
    build_spaces(TrainedSpaces.of(run), "collection:test", folder, ["all"])
    return folder


@pytest.fixture(scope="module")
def idx(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towers") / "idx"
    build(Opened.of(run), "collection:test", folder, "left")
    return folder


def test_every_way_to_rank_is_in_every_table(run: Path):
    results = read(run)
    assert results.summary is not None
    assert set(results.summary["score"]) == {"own", "pooled", "reranked", "prompts"}
    assert results.comparisons is not None
    assert {"hybrid, first hits read again", "hybrid, mean over prompts"} <= set(results.comparisons["b"])
    assert set(results.done) == {f"{arm}/fold0-seed1" for arm in ("hybrid", "query", "shared")}


def test_reading_again_moves_the_first_hits_alone(run: Path):
    queries = read(run).queries.set_index(["gallery_name", "direction", "query"])
    own, again = (queries[queries["score"] == score]["rank"] for score in ("own", "reranked"))
    assert (again[own > 4] == own[own > 4]).all()
    assert (again[own <= 4] <= 4).all()


def test_the_page_shows_spaces_with_chance_and_what_each_tells(run: Path):
    page = (run / "report.html").read_text()
    for said in ("One space per attribute", "most frequent class", "space of", "mean over prompts", "read again"):
        assert said in page
    rows = pd.DataFrame(space_summary(read(run)))
    assert set(rows["attribute"]) == {"colour", "corner"}
    assert set(rows["arm"]) == {"query", "shared"}
    assert ((rows["low"] <= rows["value"]) & (rows["value"] <= rows["high"]) & (rows["chance"] > 0)).all()


def test_an_attribute_is_asked_in_its_own_space(spaces: Path, tmp_path: Path):
    assert verify(spaces / "colour") == []
    picture = str(save_picture(tmp_path / "new.png", "green", "lower right"))
    answers = {name: search(spaces, picture, 16, condition=name).answers for name in ("colour", "corner")}
    assert {a.id for a in answers["colour"]} == {a.id for a in answers["corner"]}
    assert [a.score for a in answers["colour"]] != [a.score for a in answers["corner"]]
    itself = search(spaces, "red-upper-left-0", 1, condition="colour").answers[0]
    assert itself.id == "red-upper-left-0"
    assert itself.score == pytest.approx(1, abs=1e-5)


def test_spaces_are_extended_and_keep_to_their_run(run: Path, spaces: Path, tmp_path: Path):
    trained = TrainedSpaces.of(run)
    folder = tmp_path / "idx"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    save_picture(pictures / "one.png")
    build_spaces(trained, str(pictures), folder, ["corner"])
    save_picture(pictures / "two.png", "blue")
    found, notes = build_spaces(trained, str(pictures), folder, ["corner"])
    assert list(found) == ["corner"]
    assert load(folder / "corner").items.ids == ["one.png", "two.png"]
    assert any("one.png: already in the index" in note for note in notes)
    with pytest.raises(DataError, match="give another folder"):
        build_spaces(TrainedSpaces.of(run, "shared"), "collection:test", spaces, ["colour"])


def test_hits_are_read_again_and_prompts_are_asked_together(idx: Path, tmp_path: Path):
    plain, again = search(idx, RED, 3), search(idx, RED, 3, rerank=5)
    assert {a.id for a in again.answers} <= {a.id for a in search(idx, RED, 5).answers}
    logits = [a.again for a in again.answers]
    assert None not in logits
    assert logits == sorted(logits, reverse=True)  # type: ignore[type-var]
    assert "read again" in again.answers[0].row
    same = search(idx, RED, 3, prompts=["{}"])
    assert [a.id for a in same.answers] == [a.id for a in plain.answers]
    one, other = (search(idx, RED, 16, prompts=[p]).answers for p in ("{}", "a drawing of {}"))
    both = {a.id: a.score for a in search(idx, RED, 16, prompts=["{}", "a drawing of {}"]).answers}
    others = {a.id: a.score for a in other}
    assert both == pytest.approx({a.id: (a.score + others[a.id]) / 2 for a in one}, abs=1e-5)


def test_commands_reach_all_of_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    at = str(tmp_path / "idx")
    assert retrieval(monkeypatch, "index", str(run), "collection:test", "-o", at, "--condition", "all", "-q") == 0
    assert "colour: 16 items, backend exact" in capsys.readouterr().out
    page = tmp_path / "found.html"
    asked = ["search", at, "red-upper-left-0", "--condition", "corner", "--json", "--report", str(page)]
    assert retrieval(monkeypatch, *asked) == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["id"] == "red-upper-left-0"
    assert page.read_text().count("<img") == 7, "the query and six answers"
    assert "answers best under corner" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SPACES", "red-upper-left-0"], "holds one space per attribute (colour, corner); choose with --condition"),
        (["SPACES", "red-upper-left-0", "--condition", "color"], "no space for 'color'; there are colour, corner"),
        (["SPACES", RED, "--condition", "colour"], "reads as text, but this run was trained on image"),
        (["SPACES", "red-upper-left-0", "--condition", "colour", "--rerank", "3"], "have no cross-encoder"),
        (["IDX", RED, "--condition", "colour"], "an index without attributes, so no --condition"),
        (["IDX", "red-upper-left-0", "--rerank", "3"], "query and items are both left"),
        (["IDX", RED, "--prompt", "a drawing"], "--prompt 'a drawing': expected {} once, where the text goes"),
        (["IDX", "red-upper-left-0", "--prompt", "{}"], "words a text, but the query is of modality image"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    arguments: list[str], message: str, spaces: Path, idx: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    places = {"SPACES": str(spaces), "IDX": str(idx)}
    assert retrieval(monkeypatch, "search", *(places.get(part, part) for part in arguments)) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1


def test_an_attribute_or_arm_that_the_run_lacks_is_named(run: Path, tmp_path: Path):
    with pytest.raises(DataError, match="condition 'heel': this model knows colour, corner"):
        build_spaces(TrainedSpaces.of(run), "collection:test", tmp_path / "x", ["heel"])
    with pytest.raises(RunError, match="no spaces of an arm 'hybrid'; there are query, shared"):
        TrainedSpaces.of(run, "hybrid")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"prompts": ["a drawing"]}, "'a drawing' must hold {} once"),
        ({"spaces": {**SPACES, "embedders": {"hybrid": "ConditionalEmbedder"}}}, "'hybrid' cannot name a rival"),
        ({"rerank": {"width": 10, "heads": 4}}, "does not divide width=10"),
        ({"spaces": {**SPACES, "embedders": {"query": "ConditionalEmbeder"}}}, "did you mean 'ConditionalEmbedder'"),
    ],
)
def test_a_config_that_cannot_be_is_one_line(more: dict[str, object], message: str, tmp_path: Path):
    with pytest.raises((ConfigError, ValueError), match=re.escape(message)):
        TASK.train([written(tmp_path, **(MORE | more))])


def test_a_run_without_them_says_what_to_train(tmp_path: Path):
    plain = {"rivals": {}, "trainer": {"max_epochs": 1, "accelerator": "cpu"}}
    assert TASK.train([written(tmp_path, **plain)]) == 0
    run = tmp_path / "runs" / "retrieval" / "hybrid"
    with pytest.raises(RunError, match="learnt no space per attribute; train it with `spaces`"):
        TrainedSpaces.of(run)
    with pytest.raises(RunError, match="has no cross-encoder; train the run with `rerank"):
        Opened.of(run).cross_encoder()
