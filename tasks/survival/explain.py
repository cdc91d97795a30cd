"""`survival explain RUN PATIENT`: one patient's page, seen by the model that was trained without the patient."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from data.cohort.cohort import Cohort
from data.errors import DataError
from data.slides.catalogue import find_slides
from tasks.experiment.folder import RunError, write_whole
from tasks.experiment.report import Facts, Figure, Part, Prose, Report, Section, Table
from tasks.experiment.report.numbers import count, decimal
from tasks.experiment.signatures import did_you_mean
from tasks.survival import explain_figures as figures
from tasks.survival.explanation import Explanation, contributions, patch_attention
from tasks.survival.predict import experiment_of
from tasks.survival.results import Results, read
from tasks.survival.trained import Trained

TOP = 10
CAUTION = (
    "Attention says where the model looked, not why it decided; what an input is worth to this patient is measured by "
    "leaving it out. Neither is a statement about biology."
)


def explain(run: Path, patient: str, slides: Path | None = None) -> Path:
    """Explain one patient of a run's cohort.

    Writes `RUN/explain/PATIENT/`: explain.html, explanation.json, the figures as files and, when the model has looked
    at patches, attention.npz with every weight and attention-SLIDE.geojson for QuPath of each slide with coordinates.

    Args:
        run: the run folder
        patient: case_id
        slides: what `survival features` was given: a folder (recursive), a CSV list or one slide; None = maps over the
            patches' coordinates

    Returns:
        the page

    Raises:
        RunError: no run, or no finished unit of the model under test
        DataError: the cohort has no such patient, there is no slide in `slides`, or the patient's cannot be opened
    """
    files = {} if slides is None else {slide.slide_id: slide.path for slide in find_slides(slides)}
    explanation = explanation_of(run, patient)
    return write(explanation, run / "explain" / _file_name(patient), run.resolve().name, files)


def explanation_of(run: Path, patient: str) -> Explanation:
    """The explanation as data; arguments and errors as for `explain`."""
    results = read(run)
    experiment = experiment_of(run)
    cohort = experiment.cohort.load()
    _must_have(cohort, patient)
    unit, held_out = _unit_for(results, experiment.name, patient)
    trained = Trained.load(run / unit, experiment, experiment.name)
    prepared = trained.prepared(cohort)
    batch = prepared.collate([prepared.dataset([patient], trained.offset(prepared, [patient]))[0]])
    risk, changes = contributions(trained.model, experiment.loss, batch)
    units = (
        results.predictions[["arm", "fold", "seed"]]
        .astype(str)
        .agg("{0[arm]}/fold{0[fold]}-seed{0[seed]}".format, axis=1)
    )
    scored = results.predictions[units == unit]
    return Explanation(
        case_id=patient,
        unit=unit,
        held_out=held_out,
        risk=risk,
        others=scored["risk"].to_numpy(dtype=np.float64),
        contributions=changes,
        attention=patch_attention(trained.model, batch),
        bag=cohort.bags.read(patient) if cohort.bags is not None and patient in cohort.bags else None,
    )


def write(
    explanation: Explanation, folder: Path, run: str = "", slides: Mapping[str, Path] = MappingProxyType({})
) -> Path:
    """Write the page, the figures and the numbers of an explanation.

    Args:
        explanation: of one patient
        folder: made if it is missing
        run: name of the run, for the page's context
        slides: files by slide name
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _figures(explanation, slides)
    for picture in pictures:
        picture.save(folder)
    write_whole(folder / "explanation.json", json.dumps(as_json(explanation), indent=2))
    if explanation.attention is not None:
        arrays = {"weights": explanation.attention.weights, "readers": np.array(explanation.attention.readers)}
        if explanation.bag is not None and explanation.bag.grid is not None:
            arrays |= {"corners": explanation.bag.grid.numpy(), "slide": explanation.bag.slide.numpy()}
            for index, name in enumerate(_geojson_names(explanation)):
                write_whole(folder / name, figures.attention_geojson(explanation.bag, explanation.attention, index))
        np.savez_compressed(folder / "attention.npz", **arrays)  # type: ignore[arg-type]
    return compose(explanation, pictures, run).write(folder / "explain.html")


def compose(explanation: Explanation, pictures: list[Figure], run: str = "") -> Report:
    """The page as data."""
    first = [picture for picture in pictures if picture.key in ("contributions", "among-others")]
    seen = [picture for picture in pictures if picture not in first]
    where: list[Part] = [*seen]
    if explanation.attention is None:
        where.append(Prose([_why_no_attention(explanation)]))
    else:
        where.append(_top_table(explanation))
    return Report(
        title=f"Patient {explanation.case_id}",
        lead=_lead(explanation),
        context=" · ".join(filter(None, ["survival", run, explanation.unit])),
        sections=[
            Section("What the risk rests on", [*first, _contribution_table(explanation)]),
            Section("Where the model looks", where),
            Section("How to read this", [Prose([CAUTION]), Facts(_facts(explanation))]),
        ],
    )


def as_json(explanation: Explanation) -> dict[str, Any]:
    """The numbers of an explanation; undefined ones are null."""
    attention = explanation.attention
    return {
        "patient": explanation.case_id,
        "unit": explanation.unit,
        "held_out": explanation.held_out,
        "risk": explanation.risk,
        "share_of_scored_patients_below": explanation.share_below if len(explanation.others) else None,
        "contributions": [
            {"name": c.name, "change": c.change if np.isfinite(c.change) else None, "note": c.note}
            for c in explanation.contributions
        ],
        "attention": None
        if attention is None
        else {
            "site": attention.site,
            "readers": [
                {"name": name, "focus": float(focus)}
                for name, focus in zip(attention.readers, attention.focus, strict=True)
            ],
            "top_patches": _patches(explanation, "top"),
            "bottom_patches": _patches(explanation, "bottom"),
        },
    }


def _figures(explanation: Explanation, slides: Mapping[str, Path]) -> list[Figure]:
    found: list[Figure | None] = []
    if any(np.isfinite(c.change) for c in explanation.contributions):
        found.append(figures.contribution_bars(explanation))
    if np.isfinite(explanation.others).sum() > 1:
        found.append(figures.among_others(explanation))
    attention, bag = explanation.attention, explanation.bag
    view = figures.view_of(bag, attention.mean, slides) if attention is not None and bag is not None else None
    if attention is not None and view is not None:
        found += [
            figures.heat_map(view, attention),
            figures.patch_gallery(view, attention, "top"),
            figures.patch_gallery(view, attention, "bottom"),
            figures.heat_maps_by_group(view, attention),
        ]
    return [figure for figure in found if figure is not None]


def _lead(explanation: Explanation) -> str:
    place = explanation.share_below
    sentence = f"The model gives this patient a risk of {decimal(explanation.risk)}"
    if np.isfinite(place):
        sentence += f", higher than {place:.0%} of the {count(len(explanation.others), 'patient')} it scored"
    known = [c for c in explanation.contributions if np.isfinite(c.change)]
    if known:
        most = max(known, key=lambda c: abs(c.change))
        way = "raising" if most.change > 0 else "lowering"
        sentence += f"; of its inputs, {most.name} weighs most, {way} it by {decimal(abs(most.change))}"
    if not explanation.held_out:
        sentence += ". The model was trained on this patient, so the risk is not a prediction"
    return f"{sentence}."


def _why_no_attention(explanation: Explanation) -> str:
    if explanation.bag is None:
        return "This patient has no slide, so there is no attention over patches to show."
    return "This model has no softmax read of the slide by the genes and no gated pooling, so there is no map to show."


def _contribution_table(explanation: Explanation) -> Table:
    rows = [(c.name, decimal(c.change, signed=True), c.note) for c in explanation.contributions]
    return Table(["Left out", "Risk with minus risk without", "Note"], rows, "Positive: the input raises the risk.")


def _patches(explanation: Explanation, which: Literal["top", "bottom"]) -> list[dict[str, Any]]:
    """The patches looked at most (best first) or least (least first)."""
    attention, bag = explanation.attention, explanation.bag
    if attention is None or bag is None:
        return []
    found = []
    for patch in (attention.order if which == "top" else attention.order[::-1])[:TOP]:
        x, y = (None, None) if bag.grid is None else (float(v) for v in bag.grid[patch])
        most = attention.readers[int(attention.weights[:, patch].argmax())]
        slide = bag.slides[int(bag.slide[patch])]
        found.append(
            {"patch": patch, "slide": slide, "x": x, "y": y, "times_mean": float(attention.mean[patch]), "most": most}
        )
    return found


def _top_table(explanation: Explanation) -> Table:
    rows = [
        (
            decimal(patch["times_mean"], 1),
            "–" if patch["x"] is None else f"{patch['x']:.0f}, {patch['y']:.0f}",
            patch["most"],
            patch["slide"],
        )
        for patch in _patches(explanation, "top")
    ]
    header = ["Attention, times the mean", "Corner x, y (level-0 pixels)", "Looked at most by", "Slide"]
    return Table(header, rows, f"The {len(rows)} patches with most attention.")


def _facts(explanation: Explanation) -> dict[str, object]:
    bag = explanation.bag
    return {
        "model": explanation.unit,
        "trained without this patient": "yes" if explanation.held_out else "no",
        "slides": "none" if bag is None else ", ".join(bag.slides),
        "patches": 0 if bag is None else len(bag.features),
        "read": "none" if explanation.attention is None else explanation.attention.site,
        "for QuPath": ", ".join(_geojson_names(explanation)) or "none",
    }


def _geojson_names(explanation: Explanation) -> list[str]:
    """A file for each slide of the bag; none without attention or coordinates."""
    bag = explanation.bag
    if explanation.attention is None or bag is None or bag.grid is None:
        return []
    return [f"attention-{_file_name(name)}.geojson" for name in bag.slides]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def _must_have(cohort: Cohort, patient: str) -> None:
    if patient in cohort.patients.index:
        return
    if patient in cohort.dropped:
        raise DataError(f"patient {patient} of {cohort.name} was left out: {cohort.dropped[patient]}")
    raise DataError(f"cohort {cohort.name} has no patient {patient!r}{did_you_mean(patient, cohort.case_ids)}")


def _unit_for(results: Results, arm: str, patient: str) -> tuple[str, bool]:
    """The first unit of an arm that scored the patient; else any finished one, which was trained on the patient."""
    ours = results.predictions[results.predictions["arm"] == arm]
    if ours.empty:
        raise RunError(f"{results.path}: no finished unit of '{arm}' to explain with; continue with --resume")
    scored = ours[ours["case_id"] == patient]
    row = (ours if scored.empty else scored).iloc[0]
    return f"{arm}/fold{row['fold']}-seed{row['seed']}", not scored.empty
