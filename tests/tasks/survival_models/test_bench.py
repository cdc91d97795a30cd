"""The peer of the bench computes what we compute."""

from __future__ import annotations

import copy

import torch

from data.cohort.batch import CohortSizes
from tasks.survival.bench import GROUPS, measure, patient, plain
from tasks.survival.models import CMTA


def test_the_plain_peer_gives_the_published_result():
    torch.manual_seed(0)
    model = CMTA(CohortSizes(1024, GROUPS, (), 4), variant="published").eval()
    batch = patient(150)
    with torch.no_grad():
        torch.testing.assert_close(plain(copy.deepcopy(model))(batch).logits, model(batch).logits, rtol=1e-4, atol=1e-5)


def test_a_row_has_every_column():
    row = measure("exact", 20, repeats=1)
    assert set(row) == {"case", "ours_s", "peer", "peer_s", "ratio", "peak_mb", "note"}
    assert row["case"] == "exact, 20 patches"
    assert row["ours_s"] > 0
    assert row["peer_s"] > 0
