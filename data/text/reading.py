"""Text and JSON files, whatever bytes they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data.errors import DataError


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        DataError: no such file, or not UTF-8
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: cannot be read as text ({problem}); save it as UTF-8") from None


def parsed(text: str, where: str) -> Any:
    """The value that a JSON text stands for.

    Args:
        text: JSON
        where: its place, for the message

    Raises:
        DataError: not JSON, or JSON that is nested too deep or has endless numbers
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{where}: not readable as JSON ({problem}); correct it or write it again") from None


def parsed_object(text: str, where: str) -> dict[str, Any]:
    """As `parsed`, for an object in braces.

    Raises:
        DataError: not JSON, or another value
    """
    found = parsed(text, where)
    if not isinstance(found, dict):
        raise DataError(
            f"{where}: not a JSON object, found {type(found).__name__}; expected names and values in braces"
        )
    return found


def object_lines(path: Path, where: str = "") -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; blank lines are left out.

    Args:
        path: of the file; a line ends at a line feed alone, as other line ends of Unicode may stand inside a text
        where: what stands before the number of a line in a message; "" = the path and "line"

    Raises:
        DataError: no such file, not UTF-8, or a line that is no object
    """
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), start=1) if line.strip()]
    try:
        found = json.loads(f"[{','.join(line for _, line in lines)}]")  # at once takes half the time
    except (ValueError, RecursionError):
        found = []
    if len(found) == len(lines) and all(isinstance(row, dict) for row in found):
        return found
    return [parsed_object(line, f"{where or f'{path} line'} {number}") for number, line in lines]
