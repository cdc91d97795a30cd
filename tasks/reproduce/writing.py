"""REPRODUCED.md: the block of one paper and its row of the status table are written by the command, nothing else is."""

from __future__ import annotations

import datetime
import inspect
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from tasks.experiment.folder import RunError, write_whole
from tasks.experiment.outputs import check_output
from tasks.reproduce.rows import Result, seeds_of, verdict
from tasks.reproduce.status import with_status
from tasks.reproduce.table import HEADER, cells

LONG = 16
"""A table of more rows is folded: the count is read first, the rows when wanted."""
MANY = 3
PACKAGES = ("torch", "numpy", "scikit-learn")


def check_section(path: Path, key: str, small: bool) -> None:
    """Refuse, before hours of work, a block that could not be written or should not be.

    Args:
        path: the file; missing is fine
        key: of the paper
        small: whether the small form would be written

    Raises:
        RunError: the file cannot be written or is not text, or its block of this paper is of the full form and `small`
            would replace it
    """
    check_output(path)
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except UnicodeDecodeError:
        raise RunError(f"{path}: not text in UTF-8, so no block can be put into it; mend it or move it away") from None
    block = _block(key).search(text)
    if small and block and f"`{_command(key, small=False)}`" in block[0]:
        raise RunError(
            f"{path}: its block of {key} is of the full form, which --small would replace; leave out --write, or give "
            "the command in another folder"
        )


def write_section(
    path: Path, title: str, module: ModuleType, result: Result, small: bool, on: str = "", order: Sequence[str] = ()
) -> None:
    """Put one paper's table into a Markdown file, in place of its former one or at the end.

    What stands between `<!-- KEY: written by the command -->` and `<!-- KEY: end -->` is replaced, and the paper's row
    in the status table.

    Args:
        path: the file; made when missing
        title: of the paper
        module: whose docstring says what is run
        result: its rows
        small: whether they come from the small form
        on: which data, and whether they are real
        order: keys of all papers, for the status table
    """
    key = result["paper"]
    begin, end = _marks(key)
    section = "\n".join([begin, *_lines(key, module, result, small), end])
    text = path.read_text(encoding="utf-8") if path.exists() else "# Reproduced\n"
    known = _block(key)
    if known.search(text):
        text = known.sub(lambda _: section, text)
    else:
        text = f"{text.rstrip()}\n\n## {title}\n\n{section}\n"
    seeds = _listed(seeds_of(result)) or "none needed"
    row = (key, f"{verdict(result)}{' (small form)' if small else ''}", on or "-", str(datetime.date.today()), seeds)
    write_whole(path, with_status(text, row, order))


def _marks(key: str) -> tuple[str, str]:
    return f"<!-- {key}: written by the command -->", f"<!-- {key}: end -->"


def _block(key: str) -> re.Pattern[str]:
    begin, end = map(re.escape, _marks(key))
    return re.compile(f"{begin}.*?{end}", re.DOTALL)


def _command(key: str, small: bool) -> str:
    return f"fusion reproduce {key}{' --small' if small else ''}"


def _lines(key: str, module: ModuleType, result: Result, small: bool) -> list[str]:
    rows, seeds = result["rows"], seeds_of(result)
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    words = inspect.cleandoc(module.__doc__ or "").split("\n\n", 1)
    lines = [
        f"`{_command(key, small)}`: {verdict(result)}{_descriptive(result)}. {datetime.date.today()}, {_device()}, "
        f"Python {platform.python_version()}, {packages}. {_seeded(seeds)}.",
        "",
    ]
    if len(words) > 1:
        lines += [words[1], ""]
    if said := result.get("said"):
        lines += [*(f"- {sentence}" for sentence in said), ""]
    table = [f"| | {' | '.join(HEADER[1:])} |", f"|{' --- |' * len(HEADER)}"]
    table += [f"| {' | '.join(_cell(cell) for cell in cells(row))} |" for row in rows]
    if len(rows) > LONG:
        table = [f"<details><summary>{len(rows)} rows</summary>", "", *table, "", "</details>"]
    return lines + table


def _descriptive(result: Result) -> str:
    more = len(result["rows"]) - result["claims"]
    return f", {more} more row{'s' if more > 1 else ''} describe{'' if more > 1 else 's'}" if more else ""


def _seeded(seeds: list[int]) -> str:
    return f"Seeds {_listed(seeds)}" if seeds else "Nothing that is fitted is random"


def _listed(seeds: list[int]) -> str:
    if len(seeds) > MANY and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _cell(text: str) -> str:
    return "**no**" if text == "NO" else text.replace("|", "\\|").replace("\n", " ")


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
