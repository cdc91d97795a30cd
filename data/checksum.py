"""The check sum by which a file is known again."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256(path: Path) -> str:
    """Of all bytes of a file, in hexadecimal digits.

    Raises:
        OSError: it cannot be read
    """
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
