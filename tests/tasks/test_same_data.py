"""A run is of one data set: what it holds is noted when it begins, and compared when it goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.experiment.folder import RunError
from tasks.experiment.same_data import digest, refuse_other_data


def test_a_digest_tells_values_kinds_shapes_and_places_apart():
    x = np.arange(4, dtype=np.int32)
    others = [x + 1, x.astype(np.int64), x.reshape(2, 2), x[:3]]
    seen = [digest(x), *map(digest, others), digest("ab"), digest("a", "b"), digest(None), digest("")]
    assert len(set(seen)) == len(seen)
    assert digest(x, None, "a") == digest(x.copy(), None, "a")
    assert digest(np.asfortranarray(np.eye(3)[:, :2])) == digest(np.ascontiguousarray(np.eye(3)[:, :2]))


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
