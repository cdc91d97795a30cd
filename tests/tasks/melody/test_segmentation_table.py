"""Every row of the table of segmenters holds on the published test songs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.melody.segmentation_table import segmentation_rows


@pytest.mark.slow
def test_every_row_holds_and_the_learned_segmenter_is_the_best(shared_data: Path):
    rows = segmentation_rows(shared_data / "music")
    assert len(rows) == 18
    assert [row["name"] for row in rows if not row["ok"]] == []
    assert all("with the end counted" in row["note"] for row in rows)
    for culture in ("han", "german"):
        score = {row["name"]: row["ours"] for row in rows if row["name"].startswith(culture)}
        assert max(score, key=lambda name: score[name]) == f"{culture}: boosted trees"
        assert score[f"{culture}: dynamic programme"] > score[f"{culture}: LBDM at .35"] + 0.1
