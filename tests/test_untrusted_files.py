"""Files from anywhere: no program in them is run, no member of an archive chooses its place, no tag makes an object."""

from __future__ import annotations

import ast
import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from data.brain.arrays import ArrayBrains
from data.brain.dissimilarity import read_rdms
from data.cohort.read import read_table
from data.errors import DataError, one_line
from data.pairs.arrays import Vectors
from data.pairs.emoji import EmojiPack
from data.pairs.folk import FolkPairs
from data.slides.feature_files import feature_shape, read_features
from encoders.frozen import Features
from encoders.patch.networks import MobileNetV2Features, load_weights
from tasks.experiment.config import CONFIGS, overlay
from tasks.experiment.fit import newest_checkpoint
from tasks.experiment.folder import RunError, RunFolder
from tasks.experiment.saved import Damaged, read_saved
from tasks.experiment.signatures import ConfigError
from tasks.fmri.targets import GivenTargets
from tasks.retrieval import index_folder
from tasks.retrieval.index import Index, Settings
from tests.tasks.fmri.toy import ToyBrains

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "encoders", "fusion", "kernels", "tasks")


class Payload:
    """An object that, read as a pickle, touches a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def saved(content: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def packed(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def single(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def poisons(target: Path) -> dict[str, bytes]:
    """A payload in every wrapping that some reader opens."""
    payload = Payload(target)
    objects = np.array([payload, payload], dtype=object)
    return {
        "pickle": pickle.dumps(payload),
        "old pickle": pickle.dumps(payload, protocol=2),
        "torch": saved(payload),
        "torch, inside": saved({"features": torch.zeros(2, 3), "state_dict": payload, "epoch": 1, "loops": {}}),
        "npy": single(objects),
        "npz": packed(vectors=objects, x=objects, candidates=objects, tokens=objects, ids=objects, rdms=objects),
    }


POISONS = list(poisons(Path()))


def checkpoint(folder: Path, content: bytes) -> None:
    (folder / "last.ckpt").write_bytes(content)
    if newest_checkpoint(folder) is None:
        raise DataError("no checkpoint can be read")


def placed(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], None]:
    def use(folder: Path, content: bytes) -> None:
        (folder / name).write_bytes(content)
        read(folder / name)

    return use


def index(folder: Path, content: bytes) -> None:
    made = Index(Settings("abc", 4))
    made.add(["a"], np.eye(4, dtype=np.float32)[:1])
    index_folder.save(made, folder / "idx")
    arrays = next((folder / "idx").glob("items-*"))
    manifest = (folder / "idx" / "manifest.json").read_text()
    for name in ("vectors.npy", "alive.npy", "lengths.npy"):
        size = (arrays / name).stat().st_size
        (arrays / name).write_bytes(content)
        manifest = manifest.replace(f'"bytes": {size},', f'"bytes": {len(content)},')
    (folder / "idx" / "manifest.json").write_text(manifest)
    index_folder.load(folder / "idx")


def tokens(folder: Path, content: bytes) -> None:
    (folder / "about.json").write_text('{"width": 2}')
    (folder / "offsets.npy").write_bytes(content)
    (folder / "tokens.f16").write_bytes(bytes(16))
    Features(folder)


READERS: dict[str, Callable[[Path, bytes], None]] = {
    "checkpoint": checkpoint,
    "saved weights": placed("weights.pt", read_saved),
    "features": placed("s.pt", read_features),
    "shape of features": placed("s.pt", feature_shape),
    "features, h5": placed("s.h5", read_features),
    "weights of an encoder": placed("m.pt", lambda path: load_weights(MobileNetV2Features(), path)),
    "vectors, npy": placed("v.npy", lambda path: Vectors(str(path)).read()),
    "vectors, npz": placed("v.npz", lambda path: Vectors(str(path)).read()),
    "brains": placed("b.npz", lambda path: ArrayBrains(str(path)).read()),
    "dissimilarities, npy": placed("r.npy", read_rdms),
    "dissimilarities, npz": placed("r.npz", read_rdms),
    "dissimilarities, mat": placed("r.mat", read_rdms),
    "targets": placed("t.npz", lambda path: GivenTargets(str(path)).embed(ToyBrains().read(), [])),
    "index": index,
    "frozen tokens": tokens,
    "table": placed("t.csv", lambda path: read_table(path, ["case_id"], {})),
}


@pytest.mark.parametrize("reader", list(READERS))
@pytest.mark.parametrize("poison", POISONS)
def test_a_file_that_would_run_code_is_refused_in_one_line(reader: str, poison: str, tmp_path: Path):
    if (reader, poison) == ("shape of features", "torch, inside"):
        pytest.skip("the same reader as features")
    target = tmp_path / "owned"
    with pytest.raises((DataError, RunError, Damaged)) as refused:
        READERS[reader](tmp_path, poisons(target)[poison])
    assert not target.exists()
    assert str(refused.value).isprintable()


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


HANDED_OVER = "tasks/experiment/launch.py"
"""Ranks of one unit hand each other objects in a folder that only they can open, as multiprocessing does."""


def test_no_room_opens_a_pickle_or_lets_an_archive_choose_its_place():
    """`torch.load` with weights only, arrays by `data.array_files`, YAML by `safe_load`, nothing extracted."""
    breaches = []
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            where = path.relative_to(ROOT).as_posix()
            for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
                options = {option.arg: ast.unparse(option.value) for option in call.keywords}
                last = name.rpartition(".")[2]
                unsafe = (
                    (name == "torch.load" and options.get("weights_only") != "True")
                    or (name.startswith("yaml.") and last in ("load", "load_all", "unsafe_load", "full_load"))
                    or (last in ("load", "loads", "Unpickler") and "pickle" in name and where != HANDED_OVER)
                    or (name == "joblib.load" or last == "read_pickle")
                    or (name == "np.load" and where != "data/array_files.py")
                    or options.get("allow_pickle", "False") != "False"
                    or last in ("extractall", "extract_all", "unpack_archive")
                    or (last == "extract" and "zip" in name)
                    or name in ("eval", "exec", "os.system", "os.popen")
                    or options.get("shell") == "True"
                    or options.get("trust_remote_code") == "True"
                )
                if unsafe:
                    breaches.append(f"{where}:{call.lineno}: {name}")
    assert breaches == []


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["../../up.csv", "/up.csv", "C:\\up.csv", "a/../../up.csv"])
def test_members_of_archives_are_read_where_they_are(name: str, tmp_path: Path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    table, songs, tunes, pack = (inside / n for n in ("t.csv.zip", "s.jsonl", "tunes.zip", "emoji"))
    pack.mkdir()
    songs.write_text(
        '{"file": "up.abc", "x": 1, "split": "train", "caption": "c", "title": "t", "region": "r", "metre": "m", '
        '"key": "C", "functions_en": []}\n'
    )
    for path, member, content in (
        (table, name, b"case_id\nP1\n"),
        (tunes, name.replace(".csv", ".abc"), b"X:1\nK:C\nCDE\n"),
        (pack / "noto.zip", name, b"no picture"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, content)
    before = below(tmp_path)
    assert list(read_table(table, ["case_id"], {})["case_id"]) == ["P1"]
    if "\\" not in name:
        assert len(FolkPairs(str(songs), str(tunes)).load().left) == 1
    with pytest.raises(DataError, match="no picture of"):
        EmojiPack(pack, pd.DataFrame()).picture("noto", name)
    assert below(tmp_path) == before


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch owned']", "!!python/name:os.system", "!x {}"])
def test_yaml_makes_no_objects(tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(f"name: {tag}\n")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        overlay([tmp_path / "config.yaml"])
    with pytest.raises(ConfigError, match="the value is not readable as YAML"):
        overlay(["survival/cmta"], [f"name={tag}"])
    with pytest.raises(RunError, match="cannot be read"):
        _ = RunFolder(tmp_path).config
    assert not (tmp_path / "owned").exists()


def test_yaml_that_refers_to_itself_or_explodes_is_refused(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("a: &a\n  b: *a\n")
    with pytest.raises(ConfigError, match="more than 50000 entries; are its references"):
        overlay([path])
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 9)]
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="more than 50000 entries"):
        overlay([path])
    path.write_text("[" * 5000)
    with pytest.raises(ConfigError, match="not readable as YAML"):
        overlay([path])
    assert overlay([CONFIGS / "survival" / "cmta.yaml"])["task"] == "survival"


def test_an_error_is_one_line_that_a_terminal_may_be_shown():
    said = str(DataError("a\nb\x1b[2J\t c \u202e d"))
    assert said == "a b\\x1b[2J c \\u202e d"
    long = one_line("x" * 5000 + " remedy")
    assert len(long) < 1300
    assert long.endswith(" remedy")
    assert pickle.loads(pickle.dumps(DataError("a\nb"))).args == ("a b",)
