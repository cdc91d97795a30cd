"""Check a config tree against the constructors it names, and say what is wrong in one line."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import Any, get_args, get_origin, get_type_hints

from data.errors import one_line


class ConfigError(ValueError):
    """A config names something that does not exist, or gives it a value of the wrong kind."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?` or nothing; upper and lower case do not matter."""
    folded = {known.casefold(): known for known in names}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.5)
    return f"; did you mean '{folded[close[0]]}'?" if close else ""


def named_class(class_path: Any, namespaces: Sequence[str], where: str) -> type:
    """Import the class a config names, in full or by the short name it has in one of `namespaces`."""
    if not isinstance(class_path, str) or not class_path:
        raise ConfigError(f"{where}: class_path must be the name of a class, found {class_path!r}")
    module_name, _, name = class_path.rpartition(".")
    modules = [module_name] if module_name else list(namespaces)
    known: list[str] = []
    for candidate in modules:
        try:
            module = importlib.import_module(candidate)
        except ImportError as error:
            raise ConfigError(f"{where}: cannot import '{candidate}' ({error})") from None
        found = getattr(module, name, None)
        if inspect.isclass(found):
            return found
        known += [n for n in getattr(module, "__all__", vars(module)) if inspect.isclass(getattr(module, n, None))]
    raise ConfigError(f"{where}: no class '{name}' in {', '.join(modules)}{did_you_mean(name, known)}")


def options(cls: type) -> dict[str, inspect.Parameter]:
    """Constructor parameters a config may set, following `**kwargs` up the class hierarchy."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def check(cls: type, tree: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Check option names, class names and value types, innermost first; give the tree with full class paths.

    Args:
        cls: the class the tree holds constructor arguments of; its attribute `namespaces` lists modules for short names
        tree: constructor arguments
        where: dotted path of the tree in the config, for messages
    """
    return _check(cls, tree, where, getattr(cls, "namespaces", ()))


def _check(
    cls: type, tree: Any, where: str, namespaces: Sequence[str], given_later: Sequence[str] = ()
) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: {cls.__name__} takes options as a mapping, found {tree!r}")
    allowed = [name for name in options(cls) if name not in given_later]
    for key in tree:
        if key not in allowed:
            prefix = f"{where}: " if where else ""
            raise ConfigError(
                f"{prefix}{cls.__name__} has no option '{key}'{did_you_mean(key, allowed)} (takes {', '.join(allowed)})"
            )
    hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    checked = {
        key: _value(value, hints.get(key), f"{where}.{key}" if where else str(key), namespaces)
        for key, value in tree.items()
    }
    _check_types(cls, checked, where)
    return checked


def _value(value: Any, hint: Any, where: str, namespaces: Sequence[str]) -> Any:
    """Check one value, descending into objects, dataclasses, mappings and lists."""
    if value is None and hint is not None and "None" not in str(hint) and "Any" not in str(hint):
        raise ConfigError(f"{where}: expected {getattr(hint, '__name__', hint)}, found null")
    if isinstance(value, str) and _is_object(_without_none(hint)):
        value = {"class_path": value}
    if isinstance(value, dict) and "class_path" in value:
        extra = set(value) - {"class_path", "init_args"}
        if extra:
            raise ConfigError(f"{where}: beside class_path stands '{min(extra)}'; options go under init_args")
        cls = named_class(value["class_path"], namespaces, where)
        arguments = _check(cls, value.get("init_args") or {}, where, namespaces, _given_later(cls, hint))
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}
    plain = _without_none(hint)
    if isinstance(value, dict) and dataclasses.is_dataclass(plain):
        return _accepted(plain, _check(plain, value, where, namespaces), where)  # type: ignore[arg-type]
    if isinstance(value, dict):
        inner = getattr(_without_none(hint), "__args__", (None, None))
        item = inner[1] if len(inner) > 1 else None
        return {key: _value(entry, item, f"{where}.{key}", namespaces) for key, entry in value.items()}
    if isinstance(value, list):
        return [_value(entry, None, f"{where}[{i}]", namespaces) for i, entry in enumerate(value)]
    return value


def _accepted(cls: type, arguments: dict[str, Any], where: str) -> dict[str, Any]:
    """The arguments, if the dataclass itself takes them: its `__post_init__` knows what types cannot say."""
    if not _holds_object(arguments):
        needed = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
        if missing := [name for name in needed if name not in arguments]:
            raise ConfigError(f"{where}: {cls.__name__} needs {', '.join(missing)}")
        try:
            cls(**arguments)
        except ValueError as error:
            text = str(error)
            raise ConfigError(text if text.startswith(where) else f"{where}: {text}") from None
    return arguments


def _without_none(hint: Any) -> Any:
    kinds = [kind for kind in getattr(hint, "__args__", ()) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and type(None) in getattr(hint, "__args__", ()) else hint


def _given_later(cls: type, hint: Any) -> list[str]:
    """Constructor parameters that a factory's caller gives and a config may not: as many as its type names."""
    plain = _without_none(hint)
    called_with = get_args(plain)[0] if get_origin(plain) is Callable else []
    return list(options(cls))[: len(called_with)] if isinstance(called_with, list) else []


def _is_factory(hint: Any) -> bool:
    return "Callable" in str(hint)


def _is_object(hint: Any) -> bool:
    """Whether a value of this type is built from a class_path."""
    plain = (str, int, float, bool, PurePath)
    return _is_factory(hint) or (inspect.isclass(hint) and not issubclass(hint, plain) and get_origin(hint) is None)


def _check_types(cls: type, arguments: dict[str, Any], where: str) -> None:
    """Let jsonargparse judge the plain values of one constructor; nested objects were judged before."""
    import jsonargparse

    plain = {key: value for key, value in arguments.items() if not _holds_object(value)}
    missing = {name for name in options(cls) if name not in plain}
    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_class_arguments(cls, skip=missing, fail_untyped=False)
    try:
        parser.parse_object(copy.deepcopy(plain))
    except Exception as error:
        text = " ".join(str(error).split())
        key = re.search(r'Parser key "([^"]+)"', text)
        path = ".".join(part for part in (where, key.group(1) if key else "") if part)
        raise ConfigError(f"{path}: {_expected(text)}") from None


def _holds_object(value: Any) -> bool:
    if isinstance(value, dict):
        return "class_path" in value or any(_holds_object(entry) for entry in value.values())
    return isinstance(value, list) and any(_holds_object(entry) for entry in value)


def missing_options(tree: dict[str, Any], text: str) -> str:
    """What jsonargparse says of options that have no default and were not given, as place, class and names.

    Args:
        tree: what it parsed, with `class_path`s
        text: its message; one about anything else is left as it is
    """
    text = " ".join(text.split())
    found = re.search(r"arguments are required: ([\w.]*\w(?:, [\w.]*\w)*)", text)
    if found is None:
        return text
    where = ".".join(re.findall(r'Parser key "([^"]+)"', text[: found.start()]))
    node: Any = tree
    for name in filter(None, where.split(".")):
        node = node.get("init_args", node).get(name) if isinstance(node, dict) else None
    if isinstance(node, dict) and "class_path" in node:
        return f"{where}: {node['class_path'].rpartition('.')[2]} needs {found[1]}; give it under init_args"
    return f"{where or 'config'}: needs {found[1]}"


def _expected(text: str) -> str:
    """jsonargparse's nested text, reduced to what was expected and what was found."""
    choice = re.search(r"Expected a typing\.Literal\[(.+?)\]\. Got value: (.+)", text)
    if choice:
        return f"expected one of {choice[1].replace(chr(39), '')}, found '{choice[2].strip()}'"
    union = re.search(r"Union subtypes Subtypes: \[(.+)\] Errors: .*Given value: (.*)", text)
    if union:
        kinds = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", union[1]).replace("NoneType", "null").replace(", ", " or ")
        return f"expected {kinds}, found '{union[2].strip()}'"
    wanted = re.findall(r"Expected a[n]? (?:<class '([\w.]+)'>|([^.]+?))\. Got value: ([^.]*(?:\.\d+)?)", text)
    if wanted:
        kinds = " or ".join(dict.fromkeys((cls or other).strip() for cls, other, _ in wanted))
        return f"expected {kinds.replace('NoneType', 'null')}, found '{wanted[0][2].strip()}'"
    return text
