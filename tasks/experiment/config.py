"""Configs: YAML files overlaid on one another, typed by the constructors they build.

Three steps, each usable alone:

- `overlay` reads files (with `extends`) and `KEY=VALUE` overrides into one plain tree;
- `resolve` checks the tree against the constructors' signatures and fills in every default;
- `build` constructs the experiment.

The top-level mapping `let` only holds names for interpolation (`let: {study: blca}`, then `${let.study}`).
A mapping with `class_path` and `init_args` is an object. A class may be named in full or, when it lives in one of the
experiment's `namespaces`, by its short name. Overrides may leave `init_args` out of the path.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tasks.experiment.signatures import ConfigError, check, did_you_mean, missing_options, named_class, options

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TASKS = {
    "survival": "tasks.survival.experiment.SurvivalExperiment",
    "fmri": "tasks.fmri.experiment.FmriExperiment",
    "retrieval": "tasks.retrieval.experiment.RetrievalExperiment",
    "melody": "tasks.melody.experiment.MelodyExperiment",
}
"""Task -> the class whose constructor its configs are typed by."""
Tree = dict[str, Any]
MOST_ENTRIES = 50_000


def overlay(files: Sequence[Path | str], overrides: Iterable[str] = ()) -> Tree:
    """Lay files over one another, then single values.

    Args:
        files: YAML files, first to last; each may name parents in `extends` (relative to itself, or shipped)
        overrides: `KEY=VALUE` with a dotted key and a YAML value

    Raises:
        ConfigError: a file is missing or is not a mapping, an override is malformed, an interpolation fails
    """
    tree: Tree = {}
    for file in files:
        tree = merge(tree, _read(find(file), seen=()))
    return overlay_values(tree, overrides)


def overlay_values(tree: Tree, overrides: Iterable[str]) -> Tree:
    """Lay `KEY=VALUE` over a tree and resolve its interpolations.

    Raises:
        ConfigError: an override is malformed, or an interpolation fails
    """
    for text in overrides:
        tree = merge(tree, override(text, tree))
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(tree), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}") from None
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items() if key != "let"}


def merge(under: Tree, over: Mapping[str, Any]) -> Tree:
    """`over` wins. Mappings merge, lists replace, another `class_path` drops the inherited `init_args`,
    and `null` removes an inherited mapping."""
    merged = copy.deepcopy(under)
    if "class_path" in over and over["class_path"] != merged.get("class_path"):
        merged.pop("init_args", None)
    for key, value in over.items():
        below = merged.get(key)
        if value is None and isinstance(below, dict):
            del merged[key]
        elif isinstance(value, Mapping):
            merged[key] = merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def find(file: Path | str) -> Path:
    """A config file as given, or one of the shipped ones by its name below `configs/` (with or without `.yaml`)."""
    given = Path(file)
    for candidate in [given, *_shipped(given)]:
        if candidate.is_file():
            return candidate
    if given.is_dir():
        raise ConfigError(f"{file}: a folder; name a YAML file in it (`fusion list configs` shows the shipped ones)")
    names = {str(path.relative_to(CONFIGS).with_suffix("")): path.stem for path in CONFIGS.rglob("*.yaml")}
    near = did_you_mean(str(given.with_suffix("")), names) or did_you_mean(given.stem, [*names.values()])
    raise ConfigError(f"{file}: no such config{near or ';'} `fusion list configs` shows the shipped ones")


def _shipped(given: Path | str) -> list[Path]:
    return [CONFIGS / given, CONFIGS / f"{given}.yaml", CONFIGS.parent / given]


def _read(file: Path, seen: tuple[Path, ...]) -> Tree:
    if file in seen:
        raise ConfigError(f"{file}: extends itself through {' -> '.join(str(path) for path in seen)}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # a date such as 2026-13-01 is a ValueError
        place = getattr(error, "problem_mark", None)
        where = f" line {place.line + 1}" if place else ""
        raise ConfigError(f"{file}{where}: not readable as YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected a mapping at the top, found {type(content).__name__}")
    refuse_endless(content, file)
    said = content.pop("extends", None) or []
    parents = [said] if isinstance(said, str) else said
    if not isinstance(parents, list) or not all(isinstance(parent, str) and "\0" not in parent for parent in parents):
        raise ConfigError(f"{file}: extends {said!r}; expected the name of a config, or a list of names")
    tree: Tree = {}
    for parent in parents:
        beside = (file.parent / parent).resolve()
        path = next((place for place in [beside, *_shipped(parent)] if place.is_file()), None)
        if path is None:
            raise ConfigError(
                f"{file}: extends {parent}, but neither {beside} nor a shipped config of that name exists"
            )
        tree = merge(tree, _read(path, (*seen, file)))
    return merge(tree, content)


def refuse_endless(content: dict[Any, Any], file: Path) -> None:
    """References of YAML can name one another in a circle or a billion times over; names must be text.

    Raises:
        ConfigError: they do, or one is not
    """
    waiting: list[Any] = [content]
    for _ in range(MOST_ENTRIES):
        if not waiting:
            return
        node = waiting.pop()
        if isinstance(node, dict):
            if odd := [key for key in node if not isinstance(key, str)]:
                raise ConfigError(f"{file}: the name {odd[0]!r} is {type(odd[0]).__name__}; put it in quotes")
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    raise ConfigError(f"{file}: more than {MOST_ENTRIES} entries; are its references (&, *) going in a circle?")


def override(text: str, tree: Tree) -> Tree:
    """`a.b=3` as a tree, stepping through `init_args` where an object stands in `tree`.

    Raises:
        ConfigError: it is not KEY=VALUE
    """
    match = re.fullmatch(r"([A-Za-z_][\w.-]*)=(.*)", text, re.DOTALL)
    if match is None:
        raise ConfigError(f"override '{text}': expected KEY=VALUE, for example trainer.max_epochs=5")
    key, raw = match.groups()
    try:
        value = yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"override '{text}': the value is not readable as YAML") from None
    path: list[str] = []
    node: Any = tree
    for name in key.split("."):
        if isinstance(node, dict) and "class_path" in node and name not in ("class_path", "init_args"):
            path.append("init_args")
            node = node.get("init_args", {})
        path.append(name)
        node = node.get(name) if isinstance(node, dict) else None
    if isinstance(node, dict) and "class_path" in node and isinstance(value, str):
        path.append("class_path")
    nested: Any = value
    for name in reversed(path):
        nested = {name: nested}
    return dict(nested)


def shortened(experiment: type, tree: Tree, **short: Any) -> Tree:
    """The tree with some options laid over those of every object that takes them, however deep it stands in others.

    Args:
        experiment: the class that the tree holds arguments of
        tree: names of classes may be short
        short: options by name, such as `trainer={"max_epochs": 2}`

    Raises:
        ConfigError: a mistake in the tree
    """
    return {key: _shortened(value, short) for key, value in check(experiment, tree).items()}


def _shortened(node: Any, short: Tree) -> Any:
    if isinstance(node, list):
        return [_shortened(entry, short) for entry in node]
    if not isinstance(node, dict):
        return node
    inside = {key: _shortened(value, short) for key, value in node.items()}
    if "class_path" not in inside:
        return inside
    takes = options(named_class(inside["class_path"], (), "class_path"))
    return merge(inside, {"init_args": {name: value for name, value in short.items() if name in takes}})


def _parser(experiment: type) -> Any:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_class_arguments(experiment)
    return parser


def resolve(experiment: type, tree: Tree) -> Tree:
    """The tree with every default filled in.

    Raises:
        ConfigError: one line naming the key, the class, the nearest right name and the options
    """
    checked = check(experiment, tree)
    parser = _parser(experiment)
    try:
        namespace = parser.parse_object(copy.deepcopy(checked))
        text = parser.dump(namespace, skip_unset=False)
    except Exception as error:
        # jsonargparse raises argparse.ArgumentError for a wrong value and TypeError for a bad signature alike.
        raise ConfigError(missing_options(checked, str(error))) from None
    resolved = yaml.safe_load(text)
    return dict(resolved)


def build(experiment: type, resolved: Tree) -> Any:
    """The experiment a resolved tree describes.

    Raises:
        ConfigError: a line as of `resolve`, where a stored tree was changed by hand
    """
    parser = _parser(experiment)
    try:
        namespace = parser.parse_object(copy.deepcopy(resolved))
    except Exception:
        resolve(experiment, resolved)
        raise
    return experiment(**dict(parser.instantiate(namespace).items()))


def experiment_class(tree: Tree) -> type:
    """Which experiment a tree is for, from its `task` key, which is removed from the tree."""
    return named_class(TASKS[task_name(tree.pop("task", None))], (), "task")


def task_name(task: object) -> str:
    """The value of a config's `task` key, if there is such a task.

    Raises:
        ConfigError: there is none
    """
    if task is None:
        raise ConfigError(
            f"task: none given; expected one of {', '.join(TASKS)} (a config of slide features is for "
            "`survival features SLIDES -o DIR -c`)"
        )
    if not isinstance(task, str) or task not in TASKS:
        raise ConfigError(f"task: found {task!r}; expected one of {', '.join(TASKS)}{did_you_mean(str(task), TASKS)}")
    return task
