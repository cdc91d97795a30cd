"""The four parts of the demo: a config of each task, the page of its run, and which of its numbers are the headline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from tasks.demo.verdict import Verdict, comparisons
from tasks.experiment.config import overlay
from tasks.experiment.report import Exhibits, Prose, Report, Section
from tasks.experiment.report import Part as Shown
from tasks.fmri import report as fmri
from tasks.fmri.evaluation import ALL
from tasks.fmri.results import read as read_fmri
from tasks.melody import report as melody
from tasks.melody.results import read as read_melody
from tasks.retrieval import report as retrieval
from tasks.retrieval.answer_page import pictures
from tasks.retrieval.explain import explained
from tasks.retrieval.results import read as read_retrieval
from tasks.survival import report as survival
from tasks.survival.report_tables import CEILING, CHANCE, Scores
from tasks.survival.results import read as read_survival

GALLERY, DIRECTION = "test, full gallery", "text -> image"
"""Where retrieval is judged: a picture is looked for among all pictures, by the words of its caption."""

WHICH = {
    "right": "The first caption of the test split whose own picture comes first.",
    "wrong": "The first caption of the test split whose own picture does not come first.",
}
"""What is shown of retrieval."""

MELODY = ("decorative pitch", "note")
"""What melody is judged by: a table says notes only, so it stands beside the model in the second."""


@dataclass(frozen=True)
class Part:
    """One task of the demo.

    Attributes:
        task: its name
        title: of the part on the page
        about: what the made data are and what is asked of them
        page: the report of a run as data
        verdicts: of an evaluated run; empty when the model under test was not measured
        shown: sections of the report that stand on the common page; the run's own page has all
    """

    task: str
    title: str
    about: str
    page: Callable[[Path], Report]
    verdicts: Callable[[Path], list[Verdict]]
    shown: tuple[str, ...] = ("Result", "Figures")

    @property
    def config(self) -> str:
        """The shipped config."""
        return f"{self.task}/demo"

    def run(self, runs: Path) -> Path:
        """The run folder, below the folder of all runs."""
        return runs / self.task / str(overlay([self.config])["name"])


def survival_verdicts(run: Path) -> list[Verdict]:
    results = read_survival(run)
    if results.comparisons is None or "difference" not in results.comparisons:
        return []
    scores = Scores.of_summary(results.summary, str(results.config["name"]))
    against = comparisons(results.comparisons, (CHANCE, CEILING))
    return [Verdict("c-index", against, 0.5, scores.ceiling)] if against else []


def fmri_verdicts(run: Path) -> list[Verdict]:
    results = read_fmri(run)
    if results.comparisons is None or "difference" not in results.comparisons or results.summary is None:
        return []
    rows = results.summary
    own = rows[(rows["arm"] == results.own) & (rows["subject"] == ALL) & (rows["metric"] == "accuracy")]
    return [Verdict("accuracy", comparisons(results.comparisons), float(own["chance"].iloc[0]))]


def melody_verdicts(run: Path) -> list[Verdict]:
    results = read_melody(run)
    if results.comparisons is None:
        return []
    table = results.comparisons
    return [
        Verdict(f"nats per {part} (lower is better)", comparisons(table[table["part"] == part]), higher_is_better=False)
        for part in MELODY
        if (table["part"] == part).any()
    ]


def retrieval_verdicts(run: Path) -> list[Verdict]:
    results = read_retrieval(run)
    if results.comparisons is None or results.summary is None:
        return []
    here, whole = (
        table[
            (table["gallery_name"] == GALLERY)
            & (table["direction"] == DIRECTION)
            & (table["metric"] == retrieval.FIRST)
        ]
        for table in (results.comparisons, results.summary)
    )
    if here.empty:
        return []
    first = whole.iloc[0]
    measure = f"{retrieval.FIRST} of a caption's picture among {int(first['gallery']):,}"
    return [Verdict(measure, comparisons(here), float(first["chance"]))]


def retrieval_page(run: Path) -> Report:
    """The run's report, and what two captions of the test split find: one its own picture first, the other not.

    Drawn are the first answer and, where that is another among the five shown, the right one.
    """
    results = read_retrieval(run)
    page = retrieval.compose(results)
    shown: list[Shown] = []
    for key, query in right_and_wrong(results.queries, results.own).items():
        found = explained(run, query, 5, gallery=GALLERY)
        answers = next(section.parts for section in found.page.sections if section.title == "Answers")
        shown.append(Prose([f"{WHICH[key]} {found.page.lead}"]))
        shown += [part for part in answers if isinstance(part, Exhibits)]
        right = next((answer.rank for answer in found.answers if answer.right), 1)
        drawn = pictures(found.asking, [answer for answer in found.answers if answer.rank in (1, right)])
        shown += [figure.under(key) for figure in drawn]
    return replace(page, sections=[*page.sections, Section("Found", shown)])


def right_and_wrong(queries: pd.DataFrame, own: str) -> dict[str, str]:
    """The first caption of the arm's gallery whose picture came first, and the first whose picture did not.

    Args:
        queries: of `tasks.retrieval.results.Results`
        own: the arm
    """
    rows = queries[(queries["gallery_name"] == GALLERY) & (queries["direction"] == DIRECTION) & (queries["arm"] == own)]
    rows = rows[(rows["seed"] == rows["seed"].min()) & (rows["score"] == "own")]
    sides = {"right": rows[rows["rank"] <= 1], "wrong": rows[rows["rank"] > 1]}
    return {key: str(side["query"].iloc[0]) for key, side in sides.items() if len(side)}


PARTS = (
    Part(
        "survival",
        "Survival: slides and genes",
        "Simulated patients with a bag of slide patches, a gene table and a follow-up. The hazard has a term of the "
        "patches, one of the genes, and their product, which only a model of both can see; the true risk is known.",
        lambda run: survival.compose(read_survival(run)),
        survival_verdicts,
    ),
    Part(
        "melody",
        "Melody: a tune around a skeleton",
        "Generated tunes of known grammar. Some notes of each phrase are given, the model writes the others. Beside it "
        "stand the same model with skeletons of other tunes or none, and a table of what followed the last two notes. "
        "A skeleton gives some notes away, but no decorative pitch.",
        lambda run: melody.compose(read_melody(run)),
        melody_verdicts,
        ("Result", "Figures", "Generated songs", "Listen"),
    ),
    Part(
        "fmri",
        "Brain decoding: a new person with few samples",
        "Simulated people who share a geometry of what they see, each with voxels and noise of their own. Everybody in "
        "turn is new, with one labelled sample of half of the classes, and is scored on other runs. A trunk that the "
        "others trained reads the new person's adapter; a classical decoder knows the labelled classes alone.",
        lambda run: fmri.compose(read_fmri(run)),
        fmri_verdicts,
    ),
    Part(
        "retrieval",
        "Retrieval: pictures by their captions",
        "Rendered scenes of one to four coloured shapes, each with a caption that says what stands where. Two encoders "
        "trained from scratch are compared by pooled vectors and token by token; beside them stand the same encoders "
        "trained for one of the two.",
        retrieval_page,
        retrieval_verdicts,
        ("Result", "Figures", "Found"),
    ),
)
