"""Configs: overlays follow their rules, and every mistake is answered in one line that helps."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tasks.experiment.config import build, merge, overlay, resolve
from tasks.experiment.signatures import ConfigError


class Sizes:
    pass


class Encoder:
    pass


class Patches(Encoder):
    def __init__(self, in_dim: int = 3, width: int = 4):
        self.in_dim, self.width = in_dim, width


class Model:
    pass


class Fused(Model):
    def __init__(self, sizes: Sizes, width: int = 8, dropout: float = 0.1, encoders: dict[str, Encoder] | None = None):
        self.sizes, self.width, self.dropout, self.encoders = sizes, width, dropout, encoders


class Plain(Model):
    def __init__(self, sizes: Sizes, depth: int = 2):
        self.depth = depth


class Tall(Model):
    def __init__(self, sizes: Sizes, height: int, inside: Encoder | None = None):
        self.height, self.inside = height, inside


class Wide(Encoder):
    def __init__(self, width: int, depth: int):
        self.width, self.depth = width, depth


@dataclass(frozen=True)
class Fit:
    epochs: int = 3
    rate: float = 1e-3


@dataclass(frozen=True)
class Span:
    first: int
    last: int = 9


@dataclass(frozen=True)
class Schedule:
    kind: Literal["cosine", "constant"] = "cosine"
    warm: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.warm < 0:
            raise ValueError(f"warm={self.warm}: expected at least 0")


class Experiment:
    namespaces = (__name__,)

    def __init__(
        self,
        name: str,
        model: Callable[[Sizes], Model],
        fit: Fit = Fit(),
        rivals: dict[str, Callable[[Sizes], Model]] | None = None,
        schedule: Schedule | None = None,
        span: Span | None = None,
        source: Callable[[], Model] | None = None,
    ):
        self.name, self.model, self.fit, self.rivals, self.schedule = name, model, fit, rivals, schedule


FUSED = {"class_path": "Fused", "init_args": {"width": 3, "encoders": {"slide": {"class_path": "Patches"}}}}
TREE = {"name": "x", "model": FUSED, "rivals": {"plain": {"class_path": "Plain"}}}


def test_every_default_is_written_down():
    resolved = resolve(Experiment, TREE)
    assert resolved["fit"] == {"epochs": 3, "rate": 1e-3}
    assert resolved["model"]["init_args"]["dropout"] == 0.1
    assert resolved["model"]["init_args"]["encoders"]["slide"]["init_args"] == {"in_dim": 3, "width": 4}
    assert resolve(Experiment, resolved) == resolved


def test_a_model_is_built_with_the_sizes_given_later():
    experiment = build(Experiment, resolve(Experiment, TREE))
    sizes = Sizes()
    model = experiment.model(sizes)
    assert isinstance(model, Fused)
    assert model.sizes is sizes
    assert model.width == 3
    assert isinstance(model.encoders["slide"], Patches)
    assert experiment.rivals["plain"](sizes).depth == 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"class_path": "os.system", "init_args": {"width": 3}}, r"^model: no class 'system' in os$"),
        (
            {"class_path": f"{__name__}.Plain", "init_args": {"depth": "two"}},
            r"^model\.depth: expected int, found 'two'$",
        ),
        (
            {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "x"]}},
            "^model: Popen has no option 'args'",
        ),
        ({"class_path": f"{__name__}.Patches", "init_args": {}}, "Patches.* to be a subclass of .*Model"),
    ],
)
def test_a_stored_tree_that_was_changed_by_hand_is_refused_in_one_line(model: object, message: str):
    with pytest.raises(ConfigError, match=message):
        build(Experiment, {**resolve(Experiment, TREE), "model": model})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"modl": 1},
            r"Experiment has no option 'modl'; did you mean 'model'\? \(takes name, model, fit, .*span, source\)",
        ),
        (
            {"model": {"class_path": "Plain", "init_args": {"size": 1}}},
            r"^model: Plain has no option 'size' \(takes depth\)$",
        ),
        ({"model": {"class_path": "Plain", "init_args": {"sizes": 1}}}, r"no option 'sizes' \(takes depth\)$"),
        (
            {"source": {"class_path": "Plain", "init_args": {"deep": 1}}},
            r"did you mean 'depth'\? \(takes sizes, depth\)$",
        ),
        ({"fit": {"epoch": 1}}, r"fit: Fit has no option 'epoch'; did you mean 'epochs'\? \(takes epochs, rate\)"),
        ({"fit": {"epochs": "many"}}, r"fit\.epochs: expected int, found 'many'"),
        ({"schedule": {"wram": 1}}, r"^schedule: Schedule has no option 'wram'; did you mean 'warm'\?"),
        ({"schedule": {"kind": "linear"}}, r"^schedule\.kind: expected one of cosine, constant, found 'linear'$"),
        ({"schedule": {"limit": "many"}}, r"^schedule\.limit: expected int or null, found 'many'$"),
        ({"schedule": {"warm": -1}}, r"^schedule: warm=-1: expected at least 0$"),
        ({"fit": {"rate": None}}, r"fit\.rate: expected float, found null"),
        ({"model": {"class_path": "Fuzed"}}, r"model: no class 'Fuzed' in .*; did you mean 'Fused'\?"),
        ({"model": {"class_path": "FUSED"}}, r"model: no class 'FUSED' in .*; did you mean 'Fused'\?"),
        ({"model": {"class_path": "no.such.Model"}}, r"model: cannot import 'no\.such'"),
        (
            {"model": {"class_path": "Fused", "init_args": {"widht": 1}}},
            r"model: Fused has no option 'widht'; did you mean 'width'\? \(takes width, dropout, encoders\)",
        ),
        (
            {"model": {"class_path": "Fused", "init_args": {"width": "wide"}}},
            r"model\.width: expected int, found 'wide'",
        ),
        (
            {"model": {"class_path": "Fused", "width": 3}},
            r"model: beside class_path stands 'width'; options go under init_args",
        ),
        (
            {
                "model": {
                    "class_path": "Fused",
                    "init_args": {"encoders": {"slide": {"class_path": "Patches", "init_args": {"in_dimm": 1}}}},
                }
            },
            r"model\.encoders\.slide: Patches has no option 'in_dimm'; did you mean 'in_dim'\? \(takes in_dim, width\)",
        ),
        (
            {"rivals": {"plain": {"class_path": "Plain", "init_args": {"depth": 1.5}}}},
            r"rivals\.plain\.depth: expected int, found '1\.5'",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(tree: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        resolve(Experiment, {**TREE, **tree})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"model": "Tall"}, "model: Tall needs height; give it under init_args"),
        (
            {"model": {"class_path": "Tall", "init_args": {"height": 1, "inside": {"class_path": "Wide"}}}},
            "model.inside: Wide needs width, depth; give it under init_args",
        ),
        ({"span": {"last": 3}}, "span: Span needs first"),
        ({"model": None}, "config: needs model"),
    ],
)
def test_what_has_no_default_is_asked_for_by_name(tree: dict, message: str):
    given = {key: value for key, value in {**TREE, **tree}.items() if value is not None}
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        resolve(Experiment, given)


def test_mappings_merge_lists_replace_and_null_removes():
    under = {"a": {"x": 1, "y": [1, 2]}, "b": {"c": 1}}
    assert merge(under, {"a": {"y": [3]}, "b": None}) == {"a": {"x": 1, "y": [3]}}
    assert under == {"a": {"x": 1, "y": [1, 2]}, "b": {"c": 1}}, "the inputs are left alone"


def test_another_class_drops_the_inherited_arguments():
    merged = merge({"model": FUSED}, {"model": {"class_path": "Plain", "init_args": {"depth": 1}}})
    assert merged["model"] == {"class_path": "Plain", "init_args": {"depth": 1}}
    same = merge({"model": FUSED}, {"model": {"class_path": "Fused", "init_args": {"width": 9}}})
    assert same["model"]["init_args"]["encoders"] == FUSED["init_args"]["encoders"]


def test_overrides_step_through_init_args(tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_text("name: x\nmodel: {class_path: Fused, init_args: {encoders: {slide: {class_path: Patches}}}}\n")
    tree = overlay([file], ["model.width=5", "model.encoders.slide.in_dim=7", "fit.epochs=1"])
    resolved = resolve(Experiment, tree)
    assert resolved["model"]["init_args"]["width"] == 5
    assert resolved["model"]["init_args"]["encoders"]["slide"]["init_args"]["in_dim"] == 7
    assert overlay([file], ["model=Plain"])["model"] == {"class_path": "Plain"}
    assert overlay([file], ["model.encoders.slide=null"])["model"]["init_args"]["encoders"] == {}


def test_files_extend_one_another_first_to_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COHORT", "blca")
    (tmp_path / "base.yaml").write_text("name: base\nfit: {epochs: 1, rate: 0.1}\n")
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nfit: {epochs: 2}\nname: ${oc.env:COHORT}\n")
    (tmp_path / "over.yaml").write_text("fit: {rate: 0.5}\n")
    assert overlay([tmp_path / "child.yaml", tmp_path / "over.yaml"]) == {
        "name": "blca",
        "fit": {"epochs": 2, "rate": 0.5},
    }


@pytest.mark.parametrize("parent", ["configs/_base/survival.yaml", "_base/survival", "survival/snn"])
def test_a_shipped_config_is_extended_from_any_folder(tmp_path: Path, parent: str):
    (tmp_path / "study.yaml").write_text(f"extends: {parent}\nname: study\n")
    tree = overlay([tmp_path / "study.yaml"])
    assert tree["name"] == "study"
    assert tree["baselines"]["chance"] == {"class_path": "Chance"}


def test_let_names_values_for_interpolation_and_is_dropped(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("let: {study: blca}\nname: run_${let.study}\n")
    assert overlay([tmp_path / "a.yaml"]) == {"name": "run_blca"}
    assert overlay([tmp_path / "a.yaml"], ["let.study=brca"]) == {"name": "run_brca"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1,", r"bad\.yaml line \d+: not readable as YAML"),
        ("- 1", r"bad\.yaml: expected a mapping at the top, found list"),
        ("extends: gone.yaml", r"bad\.yaml: extends gone\.yaml, but neither .* nor a shipped config"),
        ("extends: bad.yaml", r"extends itself"),
        ("a: ${no.such}", r"a: Interpolation key 'no\.such' not found"),
        ("a: !!python/object/apply:os.system [true]", r"not readable as YAML"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str, message: str):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        overlay([tmp_path / "bad.yaml"])


def test_a_missing_config_and_a_malformed_override_are_named():
    with pytest.raises(ConfigError, match=r"nowhere: no such config.*`fusion list configs`"):
        overlay(["nowhere"])
    with pytest.raises(ConfigError, match=r"override 'epochs': expected KEY=VALUE"):
        overlay([], ["epochs"])
