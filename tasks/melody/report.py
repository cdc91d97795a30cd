"""The melody report: from whatever a run folder holds now to one page that can be heard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from tasks.experiment.report import Figure, Listing, Part, Prose, Report, Section
from tasks.experiment.report.estimates import Estimate, forest
from tasks.experiment.report.numbers import count, decimal, interval, sentence
from tasks.experiment.report.run_parts import closing_sections, context, notice
from tasks.experiment.report.training import epoch_choice
from tasks.melody.evaluation import TEST
from tasks.melody.report_tables import binding_table, every_likelihood, generation_tables, likelihood_table
from tasks.melody.results import Results, read
from tasks.melody.shown import shown_figures


def write(run: Path) -> Path:
    """Write `report.html` into a run folder, which may be incomplete: the page then says so.

    Raises:
        RunError: there is no run at this path
    """
    return compose(read(run)).write(run / "report.html")


def compose(results: Results) -> Report:
    """The report of a run as data."""
    figures = list(all_figures(results))
    sections = [
        Section("Result", list(_result(results))),
        Section("Generated songs", list(_generated(results))),
        Section("Listen", list(_listen(results))),
        Section("Figures", figures or [Prose(["There is no finished unit to draw yet."])]),
        Section("Every likelihood", [every_likelihood(results.summary)] if results.summary is not None else []),
        Section("Data", [Listing(results.account)] if results.account else []),
        *closing_sections(results, "melody"),
    ]
    source = str((results.config.get("music") or {}).get("class_path", "")).rsplit(".", 1)[-1]
    return Report(
        title=" on ".join(filter(None, [results.own, source])),
        lead=_lead(results),
        sections=[section for section in sections if section.parts],
        notice=notice(results, results.summary is not None),
        context=context(results, "melody"),
    )


def all_figures(results: Results) -> Iterator[Figure]:
    """Every figure the run has the numbers for, without those that sound."""
    if results.summary is not None:
        test = results.summary[results.summary["split"] == TEST]
        for at, part in enumerate(_compared_parts(results, test)):
            yield _arms(at, part, test[test["part"] == part], results.own)
    if len(results.epochs):
        yield epoch_choice(results.epochs, "valid", "lower", "Nats, validation", "Mean -log p of the validation pieces")


def headline(results: Results) -> str:
    """The part that tables show first: the first that the model under test was measured on, or any arm without it."""
    own = results.measured[results.measured["arm"] == results.own]
    rows = results.measured if own.empty else own
    return "" if rows.empty else str(rows["part"].iloc[0])


def _compared_parts(results: Results, test: pd.DataFrame) -> list[str]:
    """Parts that the model under test shares with another arm, the headline first, at most three."""
    counts = test.groupby("part", sort=False)["arm"].nunique()
    own = set(test.loc[test["arm"] == results.own, "part"])
    return [part for part in counts[counts > 1].index if part in own][:3]


def _arms(at: int, part: str, rows: pd.DataFrame, own: str) -> Figure:
    estimates = [
        Estimate(row.arm, row.value, row.low, row.high, "own" if row.arm == own else "baseline")
        for row in rows.itertuples()
    ]
    first = rows.iloc[0]
    things = count(int(first["n"]), part, f"{part}es" if part.endswith("h") else f"{part}s")
    return forest(
        f"arms-{at}",
        estimates,
        title=f"How likely: {part}",
        axis=f"nats per {part} (lower is better)",
        caption="Mean -log p on the test pieces, with 95 % intervals from resampling pieces.",
        n=f"{things} of {count(int(first['cases']), 'piece')}",
    )


def _result(results: Results) -> Iterator[Part]:
    if results.summary is None:
        yield Prose(["This run has not been evaluated yet: it has no summary.csv. `melody evaluate RUN` writes it."])
        return
    yield likelihood_table(results, headline(results))
    if results.comparisons is not None and len(results.comparisons):
        first = results.comparisons[results.comparisons["part"] == headline(results)]
        yield Prose([sentence(said) for said in first["sentence"]])


def _generated(results: Results) -> Iterator[Part]:
    if results.generation is None:
        return
    yield from generation_tables(results)
    broken = results.promises
    yield Prose(
        [
            f"{arm}: {count(facts['songs'], 'song')} with {count(facts['notes'], 'note')}, "
            f"{count(facts['broken'], 'broken promise')} (every skeleton note at its place, bars, metre, key, range, "
            "one voice), counted by a reader that does not know the grammar."
            for arm, facts in broken.items()
        ]
        + ["Songs are made from the skeletons of the held-out songs, so they share these notes with them."]
    )
    if (table := binding_table(results)) is not None:
        yield table


def _listen(results: Results) -> Iterator[Part]:
    if results.generation is None:
        return
    yield Prose(["Held-out songs, each beside what the model made of its skeleton notes."])
    yield from shown_figures(results)


def _lead(results: Results) -> str:
    """How likely the test pieces are under the model, against the strongest other arm."""
    part = headline(results)
    if results.summary is None or results.own not in set(results.summary["arm"]):
        return f"Nothing can be concluded yet: no unit of {results.own} is finished and measured."
    rows = results.summary
    row = rows[(rows["arm"] == results.own) & (rows["split"] == TEST) & (rows["part"] == part)].iloc[0]
    reached = f"{results.own} needs {decimal(row['value'])} nats ({interval(row['low'], row['high'])}) per {part}"
    table = results.comparisons
    here = None if table is None else table[table["part"] == part]
    if here is None or here.empty:
        return sentence(reached)
    strongest = here.loc[here["b_value"].astype(float).idxmin()]
    return f"{sentence(str(strongest['sentence']))} {sentence(reached)}"
