"""Locks and whole files for folders that several processes share.

A lock is an advisory `flock` on a small file. The kernel gives it back when its holder dies, however it dies, so a lock
cannot go stale; a lock file left by a killed process is free and the next holder deletes it. On network file systems
this needs a lock service (NFSv4 and Lustre's `flock` mount option have one).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import DataError


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold a lock for the `with` block if nobody else does; yields whether it is held. The file is gone afterwards.

    Raises:
        DataError: the file system has no locks
    """
    descriptor = _take(path)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        # Deleted while still held: whoever opened this file meanwhile sees that it is no longer the one at `path`.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path) -> int | None:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # somebody removed the empty folder meanwhile
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{socket.gethostname()} {os.getpid()}\n".encode())
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:  # its last holder deleted it between our open and our lock
            pass
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise DataError(
                    f"{path.parent}: this file system has no file locks ({error.strerror}). Mount it with them "
                    "(Lustre: -o flock), or write to a local folder"
                ) from error
            raise
        os.close(descriptor)


def holder(path: Path) -> str:
    """Host and process id written in a lock file, for messages."""
    try:
        return path.read_text().strip() or "another process"
    except OSError:
        return "another process"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is deleted when it does not.

    The temporary name is fixed: under a lock on `path`, one left by a killed process is overwritten, never collected.
    Ranks that train together write the same file at once, each through a temporary one of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part{os.environ.get('LOCAL_RANK', '')}")
    try:
        temporary.unlink(missing_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader finds the old content or the new, never a part."""
    with whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
