"""Folders of slides become features: never stopped by one slide, resumed to the same bytes, shared by runs."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from jaxtyping import Float32, UInt8

from data.errors import DataError
from data.slides import reading
from data.slides.feature_files import read_features
from data.slides.generated import stained, write_slide
from data.slides.journal import Journal
from encoders.patch import PatchEncoder
from tasks.survival import features as unit
from tasks.survival.features import extract
from tasks.survival.slide_unit import EncoderFailed

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"grid": {"patch": 64}, "tissue": {"smallest": 2000.0}}


class Brightness(PatchEncoder):
    """Mean colour of a patch; refuses the slides it is told to."""

    name, width, batch = "brightness", 3, 7

    def __init__(self, central: bool = False, refuse: float = -1.0):
        self.central, self.refuse = central, refuse

    def __call__(self, pixels: UInt8[np.ndarray, "p y x 3"]) -> Float32[np.ndarray, "p c"]:
        means = pixels.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
        if (means[:, 0] < self.refuse).any():
            raise RuntimeError("out of colours")
        return means


class Spoiler(Brightness):
    """Deletes or cuts a slide when it has seen some of its patches."""

    def __init__(self, path: str, how: str):
        super().__init__()
        self.path, self.how, self.calls = Path(path), how, 0

    def __call__(self, pixels: UInt8[np.ndarray, "p y x 3"]) -> Float32[np.ndarray, "p c"]:
        self.calls += 1
        if self.calls == 3 and self.how == "deleted":
            self.path.unlink()
        elif self.calls == 3:
            os.truncate(self.path, self.path.stat().st_size // 2)
        return super().__call__(pixels)


def encoder(**options: object) -> dict[str, object]:
    return {"class_path": f"{__name__}.Brightness", "init_args": options}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for index in range(4):
        blobs = [(0.3 + 0.1 * index, 0.5, 0.3)] if index < 3 else []
        write_slide(folder / f"s{index}.svs", stained(620 + 31 * index, 500, index, blobs), (1.0, 2.0), 0.5)
    return folder


def contents(out: Path) -> dict[str, str]:
    """Digest of every file but the journal and the pages that tell seconds."""
    told = {"journal.jsonl", "summary.csv", "contact_sheet.html"}
    files = [p for p in sorted(out.rglob("*")) if p.is_file() and p.name not in told]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def leftovers(out: Path) -> list[str]:
    return [
        str(p.relative_to(out)) for p in out.rglob("*") if p.name.endswith((".part", ".lock")) or p.name == ".locks"
    ]


def command(slides: Path, out: Path, *more: str) -> list[str]:
    code = (
        "import sys, typer; from tasks.survival.features_cli import features; "
        "app = typer.Typer(); app.command()(features); app()"
    )
    flags = ["--patch", "64", "--jobs", "1", "tissue.smallest=2000.0", *more]
    return [sys.executable, "-c", code, str(slides), "-o", str(out), *flags]


def start(args: list[str]) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(args, cwd=ROOT, env=env, start_new_session=True, **quiet)


def test_the_result_does_not_depend_on_who_reads(slides: Path, tmp_path: Path):
    runs = {
        "one by one": dict(jobs=1, share="slides"),
        "regions": dict(jobs=2, share="regions"),
        "slides": dict(jobs=2, share="slides"),
    }
    for name, how in runs.items():
        code, rows = extract(slides, tmp_path / name, SETTINGS, **how)
        assert code == 0
        assert [row.state for row in rows] == ["done", "done", "done", "empty"]
        assert leftovers(tmp_path / name) == []
    assert contents(tmp_path / "one by one") == contents(tmp_path / "regions") == contents(tmp_path / "slides")


@pytest.mark.parametrize("central", [False, True])
def test_features_are_those_of_the_patches_at_the_coordinates(slides: Path, tmp_path: Path, central: bool):
    from data.slides.grid import lay_grid, read_patch
    from data.slides.opening import open_slide

    _, rows = extract(
        slides / "s1.svs", tmp_path / "out", {**SETTINGS, "encoder": encoder(central=central)}, jobs=1, share="slides"
    )
    bag = read_features(tmp_path / "out" / rows[0].files[-1])
    with open_slide(slides / "s1.svs") as slide:
        grid = lay_grid(slide, 0.5, 64)
        assert bag.grid is not None
        for (x, y), found in zip(bag.grid.int().tolist(), bag.features.numpy(), strict=True):
            want = read_patch(slide, grid, x, y).mean(axis=(0, 1))
            np.testing.assert_allclose(found, want, rtol=1e-6)


def test_every_bad_slide_is_one_line_and_the_rest_completes(slides: Path, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.svs").symlink_to(slides / "s0.svs")
    (folder / "text.svs").write_text("no slide")
    (folder / "zero.svs").touch()
    (folder / "cut.svs").write_bytes((slides / "s1.svs").read_bytes()[:9000])
    (folder / "vanished.svs").symlink_to(tmp_path / "nowhere.svs")
    write_slide(folder / "unknown.svs", stained(400, 400), mpp=None)
    lines: list[str] = []
    code, rows = extract(folder, tmp_path / "out", SETTINGS, jobs=1, share="slides", tell=lines.append)
    found = {row.slide_id: (row.state, row.why) for row in rows}
    assert code == 1
    assert found["good"][0] == "done"
    assert found["unknown"][0] == "skipped"
    assert "--mpp-table" in found["unknown"][1]
    assert "0 bytes" in found["zero"][1]
    assert "gone" in found["vanished"][1]
    assert all(found[name][0] == "failed" for name in ("text", "zero", "cut", "vanished"))
    assert len(lines) == 6
    assert all("\n" not in line for line in lines)
    sheet = (tmp_path / "out" / "contact_sheet.html").read_text()
    assert all(row.slide_id in sheet for row in rows)
    assert (tmp_path / "out" / "summary.csv").read_text().count("\n") == 7
    code, rows = extract(folder, tmp_path / "out", SETTINGS, jobs=1, share="slides", source_mpp=0.5, resume=True)
    assert next(row for row in rows if row.slide_id == "unknown").state == "done"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"grid": {"mpp": 0.0}}, r"grid.mpp=0: expected micrometres per patch pixel, more than 0"),
        ({"grid": {"patch": 0}}, r"grid.patch=0: expected at least 1 pixel"),
        ({"grid": {"overlap": 256}}, r"grid.overlap=256: expected 0 to 255, less than grid.patch"),
        ({"grid": {"tissue_share": 3.0}}, r"grid.tissue_share=3: expected a share from 0 to 1"),
        ({"tissue": {"mpp": 0.0}}, r"tissue.mpp=0: expected micrometres per pixel of the mask"),
        ({"tissue": {"lowest": 0.5}}, r"tissue.lowest=0.5, tissue.highest=0.2: expected 0 <= lowest <= highest <= 1"),
        ({"tissue": {"close": -1.0}}, r"tissue.close=-1: expected 0 or more"),
        ({"encoder": {"class_path": "TimmModel", "init_args": {"model": "m"}}}, r"this encoder needs timm"),
    ],
)
def test_what_would_fail_at_every_slide_is_refused_before_the_first(
    slides: Path, tmp_path: Path, settings: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=said):
        extract(slides, tmp_path / "out", settings, jobs=1)
    assert not (tmp_path / "out").exists()


def test_an_encoder_that_cannot_take_the_patches_is_refused_before_the_first_slide(slides: Path, tmp_path: Path):
    with pytest.raises(EncoderFailed, match=r"patches of 20 x 20 px: StainTexture needs at least 32 px a side"):
        extract(slides, tmp_path / "out", {"grid": {"patch": 20}}, jobs=1)
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_folder_should_be_is_named(slides: Path, tmp_path: Path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ValueError, match=r"out: cannot be a folder of features \(File exists\); choose another"):
        extract(slides, tmp_path / "out", SETTINGS, jobs=1)


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder anybody can enter, and no privileges: to the administrator nothing is unreadable."""
    administrator = os.geteuid() == 0
    with TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        if administrator:
            os.seteuid(65534)
        try:
            yield Path(place)
        finally:
            if administrator:
                os.seteuid(0)


def test_what_may_not_be_read_is_a_line_and_the_rest_completes(slides: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unit, "stream", lambda f, calls, *_: ((i, f(*call)) for i, call in enumerate(calls)))
    good = (slides / "s0.svs").read_bytes()
    with as_nobody() as place:
        (place / "in" / "closed").mkdir(parents=True)
        for name in ("good.svs", "secret.svs", "closed/other.svs"):
            (place / "in" / name).write_bytes(good)
        (place / "in" / "secret.svs").chmod(0)
        (place / "in" / "closed").chmod(0)
        code, rows = extract(place / "in", place / "out", SETTINGS, jobs=1, share="slides")
        (place / "in" / "closed").chmod(0o700)
    assert code == 1
    found = {row.slide_id: (row.state, row.why) for row in rows}
    assert {name: state for name, (state, _) in found.items()} == {
        "closed": "failed",
        "good": "done",
        "secret": "failed",
    }
    assert "secret.svs: no permission to read it" in found["secret"][1]
    assert "closed: no permission to read it" in found["closed"][1]


@pytest.mark.parametrize(("how", "said"), [("deleted", "the file went away while it was read"), ("cut", "truncated")])
def test_a_slide_that_changes_while_it_is_read_is_a_line(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, said: str
):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.svs").write_bytes((slides / "s1.svs").read_bytes())
    monkeypatch.setattr(reading, "PIECE_BYTES", 8 * 64 * 64 * 3)
    monkeypatch.setattr(unit, "stream", lambda f, calls, *_: ((i, f(*call)) for i, call in enumerate(calls)))
    spoiler = {"class_path": f"{__name__}.Spoiler", "init_args": {"path": str(folder / "a.svs"), "how": how}}
    code, rows = extract(folder, tmp_path / "out", {**SETTINGS, "encoder": spoiler}, jobs=1, share="slides")
    assert code == 1
    assert [row.state for row in rows] == ["failed", "done"], [row.why for row in rows]
    assert said in rows[0].why
    assert [path.name for path in (tmp_path / "out").rglob("features_*/*")] == ["b.h5"]
    assert leftovers(tmp_path / "out") == []


def test_an_encoder_that_raises_on_one_batch_fails_that_slide_only(slides: Path, tmp_path: Path):
    dark = tmp_path / "in"
    dark.mkdir()
    (dark / "a.svs").symlink_to(slides / "s0.svs")
    pixels = stained(600, 500, blobs=[(0.5, 0.5, 0.35)])
    pixels[200:300, 250:350] = pixels[200:300, 250:350] // 2
    write_slide(dark / "b.svs", pixels)
    settings = {**SETTINGS, "encoder": encoder(refuse=120.0)}
    code, rows = extract(dark, tmp_path / "out", settings, jobs=1, share="slides")
    assert code == 1
    assert [row.state for row in rows] == ["done", "failed"]
    assert rows[1].why.startswith("encoder brightness failed on a batch of ")
    assert rows[1].why.endswith("patches (RuntimeError: out of colours)")


@pytest.mark.parametrize("mpp", [0.0, -0.5, float("nan"), 5000.0])
def test_a_resolution_of_no_microscope_is_refused_before_the_first_slide(mpp: float, slides: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"--source-mpp .*: expected 0.02 to 20 micrometres per pixel"):
        extract(slides, tmp_path / "out", SETTINGS, source_mpp=mpp)
    assert not (tmp_path / "out").exists()


def test_features_may_be_written_among_the_slides(slides: Path, tmp_path: Path):
    for out in ("features", "."):
        place = tmp_path / f"to {out}"
        shutil.copytree(slides, place)
        assert extract(place, place / out, SETTINGS, jobs=1)[0] == 0
        code, rows = extract(place, place / out, SETTINGS, jobs=1, resume=True)
        assert (code, [row.slide_id for row in rows]) == (0, ["s0", "s1", "s2", "s3"])
    interrupted = place / "other"
    (interrupted / ".locks").mkdir(parents=True)
    (interrupted / "thumbnails").mkdir()
    (interrupted / "thumbnails" / "s0.jpg").write_bytes(b"")
    assert len(extract(place, interrupted, SETTINGS, jobs=1)[1]) == 4


def test_a_full_disk_is_said_and_leaves_no_part(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, calls = os.fsync, []

    def full_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_once)
    monkeypatch.setattr(unit, "stream", lambda f, calls, *_: ((i, f(*call)) for i, call in enumerate(calls)))
    code, rows = extract(slides, tmp_path / "out", SETTINGS, jobs=1, share="slides")
    assert code == 1
    assert [row.state for row in rows] == ["failed", "done", "done", "empty"]
    assert rows[0].why == "the disk is full; free some space and repeat with --resume"
    assert leftovers(tmp_path / "out") == []


def test_resume_does_only_what_is_missing_or_other_and_says_so(slides: Path, tmp_path: Path):
    out = tmp_path / "out"
    extract(slides, out, SETTINGS, jobs=1, share="slides")
    with pytest.raises(ValueError, match=r"already holds features of 4 slides. Add --resume"):
        extract(slides, out, SETTINGS, jobs=1, share="slides")
    before = contents(out)
    gone = next(out.rglob("features_*/s1.h5"))
    gone.unlink()
    lines: list[str] = []
    extract(slides, out, SETTINGS, jobs=1, share="slides", resume=True, tell=lines.append)
    assert contents(out) == before
    assert sum("again" in line for line in lines) == 1
    assert f"s1: again, {gone.relative_to(out)} is missing" in lines
    lines.clear()
    other = {**SETTINGS, "precision": "float16"}
    extract(slides, out, other, jobs=1, share="slides", resume=True, tell=lines.append)
    assert lines[0] == "s0: again, made with other settings: precision float32 -> float16"


def test_two_runs_share_a_folder_and_do_no_slide_twice(slides: Path, tmp_path: Path):
    out, alone = tmp_path / "out", tmp_path / "alone"
    runs = [start(command(slides, out, "--resume")) for _ in range(2)]
    assert [run.wait(120) for run in runs] == [0, 0]
    lines = (out / "journal.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert leftovers(out) == []
    extract(slides, alone, SETTINGS, jobs=1, share="slides")
    assert contents(out) == contents(alone)


def killed_and_resumed(slides: Path, out: Path, kills: int, seed: int) -> None:
    pick = random.Random(seed)
    for _ in range(kills):
        run = start(command(slides, out, "--resume"))
        time.sleep(pick.uniform(0.8, 4.0))
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert start(command(slides, out, "--resume")).wait(180) == 0


def test_a_killed_run_resumes_to_the_same_bytes(slides: Path, tmp_path: Path):
    extract(slides, tmp_path / "whole", SETTINGS, jobs=1, share="slides")
    killed_and_resumed(slides, tmp_path / "killed", kills=2, seed=1)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert leftovers(tmp_path / "killed") == []


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(slides: Path, tmp_path: Path):
    extract(slides, tmp_path / "whole", SETTINGS, jobs=1, share="slides")
    killed_and_resumed(slides, tmp_path / "killed", kills=10, seed=20261122)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert leftovers(tmp_path / "killed") == []


def test_slides_of_the_real_folder(shared_data: Path, tmp_path: Path):
    code, rows = extract(shared_data / "slides", tmp_path / "out", jobs=2)
    assert code == 1
    assert [row.state for row in rows] == ["done", "skipped", "skipped"]
    assert 30 <= rows[0].patches <= 45
    (tmp_path / "mpp.csv").write_text("slide_id,mpp\nTCGA-CR-7395-01A-01-TS1,0.5\nkidney-48-5.tif,0.5\n")
    code, rows = extract(shared_data / "slides", tmp_path / "out", jobs=2, resume=True, mpp_table=tmp_path / "mpp.csv")
    assert code == 0
    assert [row.state for row in rows] == ["done", "done", "empty"]
    assert 150 <= rows[1].patches <= 170
    assert Journal(tmp_path / "out" / "journal.jsonl").last("CMU-1-Small-Region") == rows[0]
