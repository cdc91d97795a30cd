"""music-transformer: Bach chorales in nats per token, with and without a relative term (Huang et al., ICLR 2019).

The chorales and networks are those of configs/melody/chorales.yaml, in the published split; every token of all four
voices counts, repeats included. The paper's validation figures (.417 without, .357 with, .335 at best, on a GPU) are
recalled, not re-read, and no row asks for them: the bars are the project's own for two CPU cores. The epoch is chosen
on the validation pieces, so test is the figure that nothing was chosen by.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.experiment.compare import percentile_interval, resample
from tasks.melody.experiment import MelodyExperiment, experiment_of
from tasks.melody.model import Measurement, MelodyModel, table_of
from tasks.melody.train import TASK
from tasks.reproduce.length_generalisation import LENGTHS, floor, nats, trained
from tasks.reproduce.rows import Result, Row, at_least, at_most, close, result

PAPER = "music-transformer"
CONFIG = "melody/chorales"
FILE = "jsb16_separated.json.xz"
TABLE = {"valid": 0.578, "test": 0.598}
LSTM = 0.455
BAR, GAP = 0.43, 0.04
RECALLED = "paper, recalled: .357 with, .417 without, .335 at best, all on a GPU"
SMALLER = {"width": 128, "layers": 3, "feed_forward": 512}
SMALL_EPOCHS, GAP_EPOCHS = 3, 12
SEEDS, SMALL_SEEDS = (1, 2, 3), (1,)
GATE, WORSE = 0.05, 1.0


class Learned(NamedTuple):
    """Measurements of one arm with one seed, by split."""

    arm: str
    seed: int
    measured: dict[str, list[Measurement]]

    def value(self, split: str) -> float:
        """Nats per token."""
        rows = self.measured[split]
        return sum(row.nats for row in rows) / sum(row.n for row in rows)


def run(data_root: Path, small: bool = False) -> Result:
    """Tables, networks and length generalisation.

    Args:
        data_root: the imported data set music
        small: networks of a fifth of the size for three epochs and one seed instead of the config's own and three seeds

    Raises:
        DataError: the data set is not there
    """
    file = data_root / FILE
    tables = learned(experiment(file, {}), ["back-off table", "back-off table, one context fewer"], 0)
    rows = list(table_rows(tables))
    seeds = SMALL_SEEDS if small else SEEDS
    smaller = experiment(file, {**SMALLER, "epochs": SMALL_EPOCHS if small else GAP_EPOCHS})
    arms = [smaller.name, *smaller.rivals]
    found = [one for seed in seeds for one in learned(smaller, arms, seed)]
    rows += network_rows(found, smaller.name, f"{_size(SMALLER)}, ", TABLE["valid"], None if small else GAP)
    if not small:
        own = experiment(file, {})
        rows += network_rows(learned(own, arms, SEEDS[0]), own.name, "", BAR, GAP)
    return result(PAPER, [*rows, *length_rows(seeds)])


def experiment(file: Path, sizes: dict[str, int]) -> MelodyExperiment:
    """The shipped experiment.

    Args:
        file: of the chorales
        sizes: options of every network's decoder instead of the config's, and `epochs`
    """
    config = TASK.resolved_config([CONFIG], [f"music.file={file}"])
    arms = [config["model"], *config["rivals"].values()]
    for options in (arm["init_args"] for arm in arms):
        options["network"]["init_args"]["decoder"].update({k: v for k, v in sizes.items() if k != "epochs"})
        options["trainer"]["max_epochs"] = sizes.get("epochs", options["trainer"]["max_epochs"])
    return experiment_of(config)


def learned(of: MelodyExperiment, arms: Sequence[str], seed: int) -> list[Learned]:
    """Some arms of an experiment, fitted and measured."""
    music: Any = of.pieces
    found = []
    for arm in arms:
        model: MelodyModel = of.models[arm]
        with tempfile.TemporaryDirectory() as folder:
            model.fit(music, Path(folder), seed)
        found.append(Learned(arm, seed, {split: model.measure(music, split) for split in TABLE}))
    return found


def table_rows(tables: Sequence[Learned]) -> Iterator[Row]:
    """The floor: the table measured before, and the better one that leaves a context out."""
    first, better = tables
    for split, before in TABLE.items():
        note = f"measured before on the same file; tolerance: rounding; one context fewer {better.value(split):.4f}"
        yield close(f"back-off table, {split}", before, first.value(split), 1e-3, note)


def network_rows(found: Sequence[Learned], own: str, size: str, bar: float, gap: float | None) -> Iterator[Row]:
    """Relative attention against a bar, and against each network without it.

    Args:
        found: every arm with every seed
        own: the arm with relative attention
        size: of the networks, for the rows' names
        bar: on valid
        gap: by how much the others must be worse on valid; None = too few epochs to ask
    """
    relative = [one for one in found if one.arm == own]
    value = float(np.mean([one.value("valid") for one in relative]))
    test = float(np.mean([one.value("test") for one in relative]))
    said = f"{_interval(relative[0], 'valid')}; {4 * value:.3f} per 16th; test {test:.3f}; {len(relative)} seed(s); "
    against = "bar: the table" if bar == TABLE["valid"] else f"LSTM measured before {LSTM}; {RECALLED}"
    yield at_most(f"{size}relative, valid", bar, value, 0.0, said + against)
    if gap is None:
        return
    for arm in dict.fromkeys(one.arm for one in found if one.arm != own):
        others = [one for one in found if one.arm == arm]
        gaps = [a.value("valid") - b.value("valid") for a, b in zip(others, relative, strict=True)]
        note = f"valid {np.mean([one.value('valid') for one in others]):.3f}; seeds {_listed(gaps)}; {RECALLED}"
        yield at_least(f"{size}{arm}, valid above relative", gap, float(np.mean(gaps)), 0.0, note)


def length_rows(seeds: Sequence[int]) -> Iterator[Row]:
    """Sequences of four times the trained length: relative attention holds, sinusoids do not."""
    for relative, name in ((True, "relative"), (False, "added sinusoids")):
        values = np.array(
            [[nats(trained_, length, seed) for length in LENGTHS] for seed, trained_ in _models(relative, seeds)]
        )
        change = values[:, -1] - values[:, 0]
        note = (
            f"nats at lengths {', '.join(map(str, LENGTHS))}: {_listed(values.mean(axis=0))}; changes by seed "
            f"{_listed(change)}; floor {floor():.3f}"
        )
        title = f"length {LENGTHS[-1]} above {LENGTHS[0]}, {name}"
        if relative:
            yield at_most(title, GATE, float(change.max()), 0.0, f"worst seed; {note}")
        else:
            yield at_least(title, WORSE, float(change.min()), 0.0, f"best seed; {note}")


def _models(relative: bool, seeds: Sequence[int]) -> Iterator[tuple[int, Any]]:
    for seed in seeds:
        yield seed, trained(relative, seed)


def _interval(one: Learned, split: str) -> str:
    cases = table_of(one.measured[split])
    counts = resample(len(cases))
    span = percentile_interval(counts @ cases["nats"].to_numpy() / (counts @ cases["n"].to_numpy()))
    return f"95 % interval over {len(cases)} pieces {span.low:.3f} to {span.high:.3f}"


def _size(sizes: dict[str, int]) -> str:
    return f"{sizes['layers']} layers of {sizes['width']}"


def _listed(values: Sequence[float] | np.ndarray) -> str:
    return " ".join(f"{value:.3f}" for value in values)
