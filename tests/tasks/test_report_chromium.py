"""Reports in a browser, at the width of a desk and of a phone: nothing sticks out or is too small to read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.survival.explain import write as write_explanation
from tasks.survival.report import write
from tests.tasks.survival_runs import write_run
from tests.tasks.test_report import full_report
from tests.tasks.test_survival_explain import explanation

FLAGS = """--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --hide-scrollbars
--disable-component-update --disable-sync --allow-file-access-from-files --virtual-time-budget=4000 --dump-dom"""

MEASURE = """<body style="margin:0"><iframe id=f src="PAGE" width=WIDTH height=900 style="border:0"></iframe>
<pre id=said></pre>
<script>
document.getElementById("f").onload = (event) => {
  const inner = event.target.contentDocument;
  const shown = (e) => e.getBoundingClientRect();
  const inBox = (e) => e.closest(".scroll, pre, svg");
  const out = [...inner.body.querySelectorAll("*")].filter((e) => !inBox(e) && shown(e).right > WIDTH + 1);
  const scale = (t) => { const s = t.ownerSVGElement; return shown(s).width / s.viewBox.baseVal.width; };
  const sizes = [...inner.querySelectorAll("svg text")].map((t) => parseFloat(getComputedStyle(t).fontSize) * scale(t));
  const clipped = [...inner.querySelectorAll("svg text")].filter((t) => {
    const s = shown(t.ownerSVGElement), b = shown(t); return b.left < s.left - 3 || b.right > s.right + 3; });
  document.getElementById("said").textContent = JSON.stringify({
    wide: inner.documentElement.scrollWidth, out: out.map((e) => e.tagName), text: Math.min(...sizes),
    clipped: clipped.map((t) => t.textContent), figures: inner.querySelectorAll("figure").length });
};
</script>"""


def measured(page: Path, width: int, folder: Path) -> dict[str, object]:
    """What a browser of this width makes of a page."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.fail("this check needs a browser: apt-get install chromium")
    frame = folder / "frame.html"
    frame.write_text(MEASURE.replace("PAGE", page.as_uri()).replace("WIDTH", str(width)))
    profile = f"--user-data-dir={folder / f'profile-{width}'}"
    command = [browser, *FLAGS.split(), profile, "--window-size=1400,1000", frame.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    said = re.search(r'<pre id="said">(\{.*?\})</pre>', dom)
    assert said, dom[-2000:]
    return dict(json.loads(said[1]))


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["generic", "run", "patient"])
def test_a_page_fits_its_window_and_can_be_read(kind: str, width: int, tmp_path: Path):
    if kind == "generic":
        page = full_report().write(tmp_path / "report.html")
    elif kind == "run":
        page = write(
            write_run(tmp_path / "run", {"cmta": 1.0, "ridge genes + age": 0.9, "chance": 9.0, "ceiling": 0.0})
        )
    else:
        page = write_explanation(explanation(), tmp_path / "patient")
    said = measured(page, width, tmp_path)
    assert said["out"] == []
    assert said["wide"] == width
    assert said["clipped"] == []
    assert said["figures"]
    assert isinstance(said["text"], float | int)
    assert said["text"] >= 8.5
