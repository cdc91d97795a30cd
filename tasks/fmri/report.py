"""The fMRI report: from whatever a run folder holds now to one page, with interactive brain views beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.experiment.report import Figure, Listing, Part, Prose, Report, Section, Table
from tasks.experiment.report.estimates import Estimate, forest
from tasks.experiment.report.numbers import count, decimal, interval, sentence
from tasks.experiment.report.run_parts import closing_sections, context, notice
from tasks.experiment.state import text
from tasks.fmri import brain_maps, figures
from tasks.fmri.control_units import EVOKED, GEOMETRY, LAG_SWEEP, LEAKAGE, REFITTED
from tasks.fmri.derivatives import Weights, entity, read_weights
from tasks.fmri.evaluation import judged_samples, resampled_unit
from tasks.fmri.metrics import confusion
from tasks.fmri.report_features import encoding_figures, feature_parts, picture_figures, reconstruction_parts
from tasks.fmri.report_tables import Scoreboard, headline, in_parts, interval_of, leakage_rows, several
from tasks.fmri.results import Results, read

POSITION = "Position"
"""The class of baselines that see no brain but the place in the run."""

MOST_BRAINS = 3
"""Subjects whose maps are drawn on the page; the derivatives hold all."""


def write(run: Path) -> Path:
    """Write `report.html` into a run folder, which may be incomplete: the page then says so.

    Interactive brain views go to `brain-SUBJECT-ARM.html` beside it, where the data have an affine.

    Raises:
        RunError: there is no run at this path
    """
    results = read(run)
    for weights in _weights(results):
        brain_maps.interactive(run / _page_beside(weights), weights)
    return compose(results).write(run / "report.html")


def plot(run: Path) -> list[Path]:
    """Write every figure of the report as a file of its own into `run/figures`."""
    results = read(run)
    figures_ = [
        *result_figures(results), *timing_figures(results), *encoding_figures(results), *picture_figures(results),
        *map_figures(results),
    ]  # fmt: skip
    return [figure.save(run / "figures") for figure in figures_]


def compose(results: Results) -> Report:
    """The report of a run as data."""
    board = scoreboard(results)
    drawn = list(result_figures(results))
    sections = [
        Section("Result", list(_result(results, board))),
        Section("Figures", drawn or [Prose(["There is no finished unit to draw yet."])]),
        Section("Timing and leaks", list(_timing(results))),
        Section("Null and noise ceiling", list(_ceilings(results))),
        Section("Features of what was shown", list(feature_parts(results))),
        Section("Reconstruction", list(reconstruction_parts(results))),
        Section("Where in the brain", list(_maps(results))),
        Section(
            "Retrieval, classes and subjects",
            list(in_parts(board, results.classes, resampled_unit(results), figures.MOST_CLASSES)),
        ),
        Section("Data", list(_data(results))),
        *closing_sections(results, "fmri"),
    ]
    return Report(
        title=_title(results),
        lead=_lead(results, board),
        sections=[section for section in sections if section.parts],
        notice=" ".join(
            filter(None, [_leak_notice(results), _folds_notice(results), notice(results, results.summary is not None)])
        ),
        context=context(results, "fmri"),
    )


def scoreboard(results: Results) -> Scoreboard:
    """The summary of a run with its control arms told apart."""
    rows = pd.DataFrame(columns=["arm", "subject", "metric"]) if results.summary is None else results.summary
    baselines = results.config.get("baselines") or {}
    classes = {arm: str(of.get("class_path")) if isinstance(of, dict) else "" for arm, of in baselines.items()}
    blind = tuple(arm for arm, name in classes.items() if name.rsplit(".", 1)[-1] == POSITION)
    return Scoreboard(rows, results.own, blind)


def result_figures(results: Results) -> Iterator[Figure]:
    """Arms, identification, confusions, classes and subjects."""
    if results.predictions.empty or results.summary is None:
        return
    board = scoreboard(results)
    n, unit = _samples(results), resampled_unit(results)
    yield from _arms(results, board, n, unit)
    if results.own not in results.arms:
        return
    judged = judged_samples(results, results.own)
    if len(results.candidates) <= figures.MOST_CLASSES:
        counts = confusion(judged, results.candidates).to_numpy(dtype=int)
        yield figures.confusion(counts, results.candidates, results.own, n)
    yield from _classes(results, board, n, unit)
    if board.subjects:
        arms = _own_and_rival(results, board)
        values = {arm: [board.interval(arm, "accuracy", subject) for subject in board.subjects] for arm in arms}
        yield figures.by_group(
            "subjects", board.subjects, values, title="Accuracy per subject", axis="Accuracy",
            caption="Intervals: 95 %, bootstrap over the subject's runs, or its samples where it has one run.", n=n,
            lines=_chance(board),
        )  # fmt: skip


def timing_figures(results: Results) -> Iterator[Figure]:
    """The evoked response with the stated lag, and the accuracy at other lags."""
    lag = _lag(results)
    if (table := results.controls.get(EVOKED)) is not None:
        yield figures.evoked(table)
    if (table := results.controls.get(LAG_SWEEP)) is not None and lag is not None:
        values = [interval_of(row) for row in table.to_dict("records")]
        lines = {name: value for name, value in scoreboard(results).reference("accuracy").items()}
        n = count(int(table["n"].max()), "sample")
        yield figures.lag_sweep(table["lag"].tolist(), values, lag, str(table["arm"].iloc[0]), n, lines)


def map_figures(results: Results) -> Iterator[Figure]:
    """Slices and a glass brain of the weights."""
    for weights in _weights(results):
        yield brain_maps.slices(weights)
        yield brain_maps.glass(weights)


def _arms(results: Results, board: Scoreboard, n: str, unit: str) -> Iterator[Figure]:
    caption = f"Held-out samples, with 95 % intervals from resampling {several(unit)}. {_null_words(results)}"
    for metric, title, axis in (
        ("accuracy", "Every arm on the same samples", "Accuracy (higher is better)"),
        ("two_way", "Two-way identification", "Share of pairs told apart (higher is better)"),
    ):
        lines = board.reference(metric)
        lines |= {arm: row["value"] for arm in board.controls if (row := board.of(arm, metric)) is not None}
        ceiling = _facts(results).get("ceiling")
        if metric == "accuracy" and ceiling is not None:
            lines["ceiling"] = float(ceiling)
        yield forest(
            "arms" if metric == "accuracy" else "two-way", board.estimates(metric), title=title, axis=axis,
            caption=caption, n=n, lines=lines,
        )  # fmt: skip
    if results.comparisons is not None and "difference" in results.comparisons and len(results.comparisons):
        rows = [Estimate(f"minus {c.b}", c.difference, c.low, c.high, "own") for c in results.comparisons.itertuples()]
        yield forest(
            "differences", rows, title=f"Paired differences: {results.own} …",
            axis="Difference in accuracy (right: ours is better)",
            caption=f"Each difference on the same samples, 95 % interval of a paired bootstrap over {several(unit)}.",
            n=n, lines={"no difference": 0.0}, signed=True,
        )  # fmt: skip


def _classes(results: Results, board: Scoreboard, n: str, unit: str) -> Iterator[Figure]:
    if results.classes is None or not 2 <= results.classes["label"].nunique() <= figures.MOST_CLASSES:
        return
    labels = list(dict.fromkeys(results.classes["label"].astype(str)))
    values = {}
    accuracies = results.classes[results.classes["metric"] == "accuracy"]
    for arm in _own_and_rival(results, board):
        rows = accuracies[accuracies["arm"] == arm].set_index("label")
        values[arm] = [interval_of(rows.loc[label]) for label in labels]
    yield figures.by_group(
        "classes", labels, values, title="Accuracy per class", axis="Accuracy",
        caption=f"Intervals: 95 %, bootstrap over {several(unit)}.", n=n, lines=_chance(board),
    )  # fmt: skip


def _chance(board: Scoreboard) -> dict[str, float]:
    """The line of a figure of parts of the samples: the permuted 95 % of all samples would be too low a bar there."""
    return {name: value for name, value in board.reference("accuracy").items() if name == "chance"}


def _own_and_rival(results: Results, board: Scoreboard) -> list[str]:
    return [results.own, *([board.strongest_rival] if board.strongest_rival else [])]


def _result(results: Results, board: Scoreboard) -> Iterator[Part]:
    if results.summary is None:
        yield Prose(["This run has not been evaluated yet: it has no summary.csv. `fmri evaluate RUN` writes it."])
        return
    unit = resampled_unit(results)
    on_whom = (
        f"{_samples(results)}. Every arm was scored on the same held-out samples. Intervals: 95 %, bootstrap over "
    )
    yield headline(board, _facts(results).get("ceiling"), f"{on_whom}{several(unit)}. {_null_words(results)}")
    said = [_ceiling_words(results)]
    if results.comparisons is not None and "sentence" in results.comparisons:
        said = [*map(sentence, results.comparisons["sentence"]), *said]
    yield Prose([words for words in said if words])


def _timing(results: Results) -> Iterator[Part]:
    yield from timing_figures(results)
    if (table := results.controls.get(EVOKED)) is not None:
        yield Prose([sentence(f"{said[:1].upper()}{said[1:]}") for said in dict.fromkeys(table["sentence"])])
    if (table := results.controls.get(LEAKAGE)) is not None:
        yield Table(
            ["unit", "split", "accuracy", "95 % interval", "samples"], list(leakage_rows(table)),
            f"What a leak is worth: {table['arm'].iloc[0]} with whole runs held out, and with random folds that cut "
            "runs. Only the first kind says how well a new run would be decoded.",
        )  # fmt: skip


def _ceilings(results: Results) -> Iterator[Part]:
    if parts := [table for name, table in results.controls.items() if name.startswith(REFITTED)]:
        table = pd.concat(parts)
        drawn = table["drawn"].to_numpy(dtype=float)
        yield Prose(
            [
                f"{table['arm'].iloc[0]} fitted anew on each of {len(drawn):,} label shuffles within runs reaches "
                f"{decimal(float(drawn.mean()))} on average, {decimal(float(np.quantile(drawn, 0.95)))} at the 95th "
                f"percentile and {decimal(float(drawn.max()))} at most; with the true labels it reaches "
                f"{decimal(float(table['observed'].iloc[0]))}."
            ]
        )
    if (table := results.controls.get(GEOMETRY)) is not None and len(table):
        rows = [
            [r.between, f"{r.alike:.3f}", f"{r.least_alike:.3f} to {r.most_alike:.3f}", f"{r.low:.3f}", f"{r.high:.3f}",
             r.rdms, r.conditions]
            for r in table.itertuples()
        ]  # fmt: skip
        yield Table(
            ["between", "of two, mean", "of two, range", "ceiling, lower", "upper", "RDMs", "conditions"], rows,
            "Representational geometry (Spearman correlation of dissimilarity matrices): how alike two brains, or two "
            "runs, are, and the noise ceiling, between whose ends the best possible model of the geometry lies.",
        )  # fmt: skip


def _maps(results: Results) -> Iterator[Part]:
    yield from map_figures(results)
    beside = [_page_beside(weights) for weights in _weights(results)]
    if beside:
        yield Prose([f"To walk through the volume, open {', '.join(beside)} in the folder of this page."])


def _weights(results: Results) -> list[Weights]:
    """Of the model under test in the first subjects, where it has any; then of the control arm in the first subject."""
    every = read_weights(results.path / "derivatives")
    own = [weights for weights in every if weights.arm == results.own]
    others = [weights for weights in every if weights.arm != results.own]
    return own[:MOST_BRAINS] + others[: 1 if own else MOST_BRAINS]


def _page_beside(weights: Weights) -> str:
    return f"brain-{weights.subject}-{entity(weights.arm)}.html"


def _data(results: Results) -> Iterator[Part]:
    said = _facts(results)
    if said:
        rows = [[label, of["samples"], of["runs"], of["voxels"]] for label, of in said["subjects"].items()]
        yield Table(["subject", "samples", "runs", "voxels"], rows, f"{said['name']}: {said['candidates']} candidates.")
    if results.account:
        yield Prose(["What was read, dropped and why."])
        yield Listing(results.account.rstrip())


def _title(results: Results) -> str:
    model = str((results.config.get("model") or {}).get("class_path", "")).rsplit(".", 1)[-1]
    return f"{model} on {_facts(results).get('name') or results.path.resolve().name}"


def _lead(results: Results, board: Scoreboard) -> str:
    """What was reached between chance and ceiling, and whether it beats the strongest baseline."""
    row = board.of(results.own, "accuracy")
    if row is None:
        finished = [unit for unit in results.done if unit.rsplit("/", 1)[0] == results.own]
        what = f"{count(len(finished), 'unit')} of {results.own}" if finished else f"no unit of {results.own}"
        return f"Nothing can be concluded yet: {what} {'is' if len(finished) < 2 else 'are'} finished."
    span = interval(row["low"], row["high"])
    limits = [f"chance {decimal(row['chance'])}"]
    if np.isfinite(row["null_p95"]):
        limits.append(f"95 % of label shuffles stay below {decimal(row['null_p95'])}")
    for arm in board.controls:
        if (seen := board.of(arm, "accuracy")) is not None:
            limits.append(f"{arm} reaches {decimal(seen['value'])} without seeing a brain")
    reached = f"{results.own} decodes with an accuracy of {decimal(row['value'])}" + (f" ({span})" if span else "")
    verdict = _verdict(results, board.strongest_rival)
    return f"{verdict} {reached}; {'; '.join(limits)}.".strip()


def _verdict(results: Results, rival: str | None) -> str:
    if rival is None or results.comparisons is None or "b" not in results.comparisons:
        return ""
    against = results.comparisons[results.comparisons["b"] == rival]
    return sentence(against["sentence"].iloc[0]) if len(against) else ""


def _null_words(results: Results) -> str:
    permutations = (results.config.get("controls") or {}).get("permutations", 0)
    if not permutations:
        return ""
    return f"Permuted: {permutations:,} shuffles of the labels within runs."


def _ceiling_words(results: Results) -> str:
    if _facts(results).get("ceiling") is not None:
        return ""
    return "No noise ceiling of the accuracy is known for these data, so how much of the reachable was reached is open."


def _notices(results: Results) -> list[str]:
    return [_leak_notice(results), _folds_notice(results), notice(results, results.summary is not None)]


def _leak_notice(results: Results) -> str:
    if not results.leaks:
        return ""
    return (
        "RUNS ARE CUT: some runs have samples in training and in test, as this config asks by name. Neighbours in a "
        "run share noise, so every number below may be inflated."
    )


def _folds_notice(results: Results) -> str:
    """A run of some folds looks like one of all, and its few samples like the whole study."""
    folds, scored = int(_facts(results).get("folds", 0)), results.predictions["fold"].nunique()
    if not 0 < scored < folds:
        return ""
    return f"A first look, not the study: {scored} of {count(folds, 'fold')} {'was' if scored == 1 else 'were'} run."


def _samples(results: Results) -> str:
    samples = results.predictions.drop_duplicates("sample")
    runs = len(samples[["subject", "run"]].drop_duplicates())
    return f"{count(len(samples), 'sample')}, {count(runs, 'run')}, {count(samples['subject'].nunique(), 'subject')}"


def _facts(results: Results) -> dict[str, Any]:
    return dict(json.loads(text(results.path / "data.json") or "{}"))


def _lag(results: Results) -> float | None:
    lag = ((results.config.get("brains") or {}).get("init_args") or {}).get("lag")
    return None if lag is None else float(lag)
