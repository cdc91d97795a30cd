"""What Python raises over a damaged zip file or one of its members."""

from __future__ import annotations

import zipfile
import zlib

ZIP_FAULTS = (
    OSError,
    EOFError,
    UnicodeError,
    RuntimeError,  # encrypted, or of another compression or version
    zlib.error,
    zipfile.BadZipFile,
)
