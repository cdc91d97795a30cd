"""The page of a brain decoder in a browser, at the width of a desk and of a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.fmri.explain import explain
from tests.tasks.test_report_chromium import measured


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["run", "subject"])
def test_a_page_fits_its_window_and_can_be_read(finished: Path, kind: str, width: int, tmp_path: Path):
    page = finished / "report.html" if kind == "run" else explain(finished, "01")[0]
    said = measured(page, width, tmp_path)
    assert said["out"] == []
    assert said["wide"] == width
    assert said["clipped"] == []
    assert said["figures"]
    assert isinstance(said["text"], float | int)
    assert said["text"] >= 8.5
