"""The command line's manners: one line per error, results on stdout, everything else on stderr, honest exit codes.

Exit codes: 0 done, 1 some units failed (each is listed), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data.errors import one_line

FOLDED = 40
"""Characters of a cell from which a table in a terminal may fold it."""
EXPLAINED = ("RunError", "NoBackend")
"""Errors, by name, whose message is meant for users; their modules are not imported for help."""
REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EEXIST: "a file stands where a folder is wanted; give another path",
    errno.ENOTDIR: "a file stands where a folder is wanted; give another path",
    errno.EISDIR: "a folder stands where a file is wanted; name a file in it",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EACCES: "change its permissions or give another path",
    errno.EPERM: "change its permissions or give another path",
    errno.EROFS: "give a path on another disk",
}
DONE, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def run_command(app: Callable[..., Any], name: str) -> None:
    """Run a typer application and end the process.

    Args:
        app: the typer application; its commands return an exit code or None
        name: what stands before every error line
    """
    from typer.main import get_command

    from tasks.experiment.names import check_names

    # Read when a command loads numpy. Threads of linear algebra wait for one another where cores are shared, and they
    # gain nothing on matrices of the size of a cohort. `units` say the same of themselves.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        check_names()
        code = get_command(app).main(prog_name=name, standalone_mode=False)  # type: ignore[arg-type]
    except KeyboardInterrupt:
        say("interrupted; repeat with --resume to go on from the last epoch", name)
        code = INTERRUPTED
    except Exception as error:
        code = _explained(error, name)
    sys.stdout.flush()
    sys.exit(code if isinstance(code, int) else DONE)


def _explained(error: Exception, name: str) -> int:
    """Say an error in one line; anything that is not about the user's input keeps its traceback."""
    if type(error).__name__ in ("Exit", "Abort"):
        return int(getattr(error, "exit_code", INTERRUPTED))
    if hasattr(error, "format_message"):
        said = error.format_message()
        if said.startswith("No such command") and "Did you mean" not in said:
            said += f" `{name} --help` shows what there is."
        say(said, name)
        return BAD_INPUT
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        say("the disk is full; free some space and repeat", name)
        return BAD_INPUT
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        remedy = REMEDIES.get(error.errno or 0, "check the path and its disk")
        say(one_line(f"{error.filename}: {error.strerror.lower()}; {remedy}"), name)
        return BAD_INPUT
    if isinstance(error, ValueError | FileNotFoundError | PermissionError) or type(error).__name__ in EXPLAINED:
        say(" ".join(str(error).split()), name)
        return BAD_INPUT
    raise error


def say(text: str, name: str | None = None) -> None:
    """One line on stderr."""
    print(f"{name}: {text}" if name else text, file=sys.stderr, flush=True)


def progress(text: str) -> None:
    """One line on stderr about how far things are, unless asked to be quiet."""
    if logging.getLogger("fusion").level != logging.WARNING:
        say(text)


def speak_up(quiet: bool) -> None:
    """Let units log their epochs to stderr, and `progress` its lines, unless asked to be quiet."""
    logger = logging.getLogger("fusion")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


def numbers(text: str | None, option: str) -> list[int] | None:
    """`0,2` as [0, 2], each once; None and `all` as None.

    Raises:
        ValueError: something else
    """
    if text is None or text == "all":
        return None
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ValueError(
            f"{option} {text}: expected whole numbers with commas, for example {option} 0,2, or all"
        ) from None


def seed_numbers(text: str) -> list[int]:
    """`1,2` as [1, 2], each once.

    Raises:
        ValueError: something else
    """
    try:
        seeds = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0:
        raise ValueError(f"--seeds {text}: expected whole numbers from 0 with commas, for example --seeds 1,2,3")
    return seeds


def print_json(content: Any) -> None:
    """Content on stdout as JSON; a number that is not finite becomes null."""
    print(json.dumps(_finite(content), indent=2, default=str))


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):
        return None
    return content


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Rows on stdout: a table in a terminal, tab-separated text elsewhere.

    Long texts are folded. Nothing else is broken or cut: a terminal that is too narrow goes on in its next line.
    """
    if not rows:
        return
    columns = list(columns or rows[0])
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    if not sys.stdout.isatty():
        print("\n".join("\t".join(line) for line in [columns, *cells]))
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    needed = 0
    for column, *own in zip(columns, *cells, strict=True):
        widest = max(map(cell_len, [column, *own]))
        foldable = widest > FOLDED
        table.add_column(column, no_wrap=not foldable, overflow="fold", min_width=FOLDED // 2 if foldable else widest)
        needed += (FOLDED // 2 if foldable else widest) + 2
    for line in cells:
        table.add_row(*line)
    console = Console(no_color="NO_COLOR" in os.environ)
    console.width = max(console.width, needed)
    console.print(table)


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
