"""A run is of one data set: what it holds is noted when it begins, and compared when it goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.experiment.folder import RunError
from tasks.experiment.same_data import digest, digest_of_files, refuse_other_data


def test_a_digest_tells_values_kinds_shapes_and_places_apart():
    x = np.arange(4, dtype=np.int32)
    others = [x + 1, x.astype(np.int64), x.reshape(2, 2), x[:3]]
    seen = [digest(x), *map(digest, others), digest("ab"), digest("a", "b"), digest(None), digest("")]
    assert len(set(seen)) == len(seen)
    assert digest(x, None, "a") == digest(x.copy(), None, "a")
    assert digest(np.asfortranarray(np.eye(3)[:, :2])) == digest(np.ascontiguousarray(np.eye(3)[:, :2]))


def test_files_are_told_apart_by_size_and_pieces(tmp_path: Path):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for at, file in enumerate(files):
        file.write_bytes(bytes([at]) * (10, 5_000, 100_000)[at])
    before = digest_of_files(files)
    assert digest_of_files([*files, files[0]]) == before, "each counts once"
    for file, change in ((0, b"x" * 10), (1, b"\1" * 4_999 + b"\2"), (2, b"\2" * 99_999 + b"\3"), (2, b"\2" * 99_999)):
        whole = files[file].read_bytes()
        files[file].write_bytes(change)
        assert digest_of_files(files) != before
        files[file].write_bytes(whole)
    assert digest_of_files(files) == before
    assert digest_of_files(files[::-1]) != before
    files[0].unlink()
    assert digest_of_files(files) != before
    assert digest_of_files([]) == digest_of_files([])


def test_the_same_data_go_on_and_others_are_named(tmp_path: Path):
    began = {"patients": "1", "genes": "2"}
    refuse_other_data(tmp_path, began)
    refuse_other_data(tmp_path, dict(reversed(began.items())))
    for now, named in (
        ({**began, "genes": "3"}, "genes"),
        ({"patients": "1"}, "genes"),
        ({**began, "slides": "4"}, "slides"),
    ):
        with pytest.raises(RunError, match=rf": {named}: not what this run began with.*remove its folder"):
            refuse_other_data(tmp_path, now)
    refuse_other_data(tmp_path, began)


def test_a_run_whose_task_says_nothing_goes_on(tmp_path: Path):
    refuse_other_data(tmp_path, {})
    refuse_other_data(tmp_path, {})
