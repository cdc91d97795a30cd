"""Small pieces of each kind of work, and what they leave behind as something to compare."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
import yaml
from jaxtyping import Float32, UInt8
from torch.utils.data import DataLoader, TensorDataset

from data.slides.generated import stained, write_slide
from encoders.patch import PatchEncoder
from tasks.experiment.engine import stream
from tasks.experiment.fit import fit, forget
from tasks.experiment.folder import RunFolder, write_whole
from tasks.experiment.order import EpochOrder
from tasks.experiment.saved import read_saved
from tasks.experiment.trainer import TrainerOptions
from tasks.experiment.units import Outcome, Unit, run_units
from tasks.retrieval import index_folder
from tasks.retrieval.index import Index, Settings
from tasks.survival import features
from tasks.survival.train import TASK
from tasks.survival.unit import run as survival_unit

EPOCHS = 4


class Wobbly(L.LightningModule):
    """One linear layer behind a heavy dropout, so that every random number matters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.dropout = torch.nn.Linear(4, 1), torch.nn.Dropout(0.5)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return self.layer(self.dropout(batch[0])).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.1)


def fitted(folder: Path, seed: int = 1) -> dict[str, Any]:
    """A unit of work: fit, keep the weights, forget the checkpoints."""
    torch.manual_seed(seed)
    module = Wobbly()
    cases = TensorDataset(torch.randn(20, 4, generator=torch.Generator().manual_seed(5)))
    loader = DataLoader(cases, 5, sampler=EpochOrder(20, seed))
    fit(module, loader, folder, TrainerOptions(progress=False, accelerator="cpu"), seed, max_epochs=EPOCHS)
    weights = module.layer.weight.detach().flatten().tolist()
    write_whole(folder / "weights.csv", "\n".join(map(repr, weights)))
    forget(folder)
    return {"epochs": EPOCHS}


def sweep(folder: Path, units: int = 3, jobs: int = 1) -> list[Outcome]:
    """Several units below one locked run folder, those that are done left as they are."""
    run = RunFolder(folder)
    with run.locked():
        run.create({"name": "sweep"}, ["test"], resume=True)
        work = [Unit(folder / "arm" / f"fold{k}-seed1", fitted, {"seed": k}) for k in range(units)]
        return list(run_units(work, jobs))


def must_finish(outcomes: list[Outcome]) -> None:
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert not failed, failed


def write_study(folder: Path) -> dict[str, Any]:
    """A table of 40 patients, and the config of a network on it."""
    rng = np.random.default_rng(3)
    genes = rng.standard_normal((40, 6))
    died, left = rng.exponential(20 * np.exp(-2 * genes[:, 0])), rng.exponential(40, 40)
    table = pd.DataFrame(genes, columns=[f"G{k}_rnaseq" for k in range(6)])
    table.insert(0, "case_id", [f"P{k}" for k in range(40)])
    table["survival_months"], table["censorship"] = np.minimum(died, left).round(3) + 0.1, (left < died).astype(int)
    table.to_csv(folder / "table.csv", index=False)
    (folder / "sets.gmt").write_text("a\tx\tG0\tG1\tG2\nb\tx\tG3\tG4\tG5\n")
    places = {"table": str(folder / "table.csv"), "groups": str(folder / "sets.gmt"), "folds": 2}
    config = {
        "extends": "_base/survival.yaml",
        "name": "s",
        "cohort": {"class_path": "TableCohort", "init_args": places},
        "model": "SNN",
        "prepare": {"init_args": {"bins": 2}},
        "loss": {"init_args": {"bins": 2}},
        "trainer": {"max_epochs": 3, "accelerator": "cpu"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    return TASK.resolved_config([str(folder / "study.yaml")], [])


def study(folder: Path, config: dict[str, Any]) -> list[Outcome]:
    """One network on one fold, as `survival train` runs it."""
    return list(run_units([Unit(folder, survival_unit, {"config": config, "arm": "s", "fold": 0, "seed": 1})]))


class Brightness(PatchEncoder):
    """Mean colour of a patch."""

    name, width, batch = "brightness", 3, 7

    def __call__(self, pixels: UInt8[np.ndarray, "p y x 3"]) -> Float32[np.ndarray, "p c"]:
        return pixels.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)


FEATURES = {
    "encoder": {"class_path": f"{__name__}.Brightness"},
    "grid": {"patch": 64},
    "tissue": {"smallest": 2000.0},
}


def write_slides(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        write_slide(folder / f"s{k}.svs", stained(420 + 31 * k, 400, k, [(0.3 + 0.1 * k, 0.5, 0.3)]), (1.0, 2.0), 0.5)
    return folder


def _here(function: Any, calls: Any, *_: Any) -> Iterator[tuple[int, Any]]:
    """Calls in this process, so that a step of theirs is a step of the work."""
    return stream(function, calls, jobs=0)


def extracted(slides: Path, out: Path, jobs: int = 0) -> tuple[int, list[Any]]:
    """Features of a folder of slides; with `jobs` in processes of their own."""
    if not jobs:
        features.stream = _here  # type: ignore[assignment]  # of this copy of the process alone
    return features.extract(slides, out, FEATURES, resume=True, jobs=jobs or 1, share="slides")


def indexed(folder: Path, batches: int = 3) -> None:
    """An index grown in several sittings: a batch that is in it already is left out."""
    for batch in range(batches):
        there = (folder / index_folder.MANIFEST).is_file()
        index = index_folder.load(folder) if there else Index(Settings("abc", 4))
        names = [f"item-{batch}-{k}" for k in range(3) if f"item-{batch}-{k}" not in index.items]
        if names:
            rows = np.random.default_rng(batch).standard_normal((len(names), 4)).astype(np.float32)
            index.add(names, rows / np.linalg.norm(rows, axis=1, keepdims=True))
        index_folder.save(index, folder)


def contents(folder: Path) -> dict[str, str]:
    """Digests of the results below a folder; clocks, logs and what an attempt leaves for the next are not results."""
    told = ("journal.jsonl", "summary.csv", "contact_sheet.html", "done.json", "log.txt", "environment.json", ".lock")
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).as_posix()
        if not path.is_file() or path.name in told or inside.rpartition("log-")[1]:
            continue
        if path.suffix == ".pt" and path.name == "weights.pt":
            weights = {name: value.tolist() for name, value in read_saved(path).items()}
            found[inside] = repr(weights)
        else:
            found[inside] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def index_of(folder: Path) -> dict[str, Any]:
    """What an index answers with."""
    index = index_folder.load(folder)
    assert index_folder.verify(folder) == []
    return {name: index.items.vectors[row].tolist() for row, name in enumerate(index.items.row_ids)}
