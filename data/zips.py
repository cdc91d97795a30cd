"""What Python raises over a damaged zip file or one of its members."""

from __future__ import annotations

import zipfile
import zlib

ZIP_FAULTS = (
    OSError,
    EOFError,
    UnicodeError,
    NotImplementedError,  # another compression or version
    RuntimeError,  # encrypted
    zlib.error,
    zipfile.BadZipFile,
)
