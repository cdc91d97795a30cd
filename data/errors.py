"""The error a caller of `data` would catch, and the one line that any error is."""

from __future__ import annotations

LONGEST = 1200
"""Characters of a message; of a longer one the middle is left out, since the input stands first and the remedy last."""


class DataError(ValueError):
    """A file or table is not what it must be; the message names the input, what was found and the remedy."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Text as one line that a terminal may be shown, whatever a file put into it.

    Blanks and line breaks become single blanks; what cannot be printed, such as a terminal's control characters, is
    spelt out.
    """
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST * 2 // 3]} ... {line[-LONGEST // 3 :]}"
