"""A lock between processes that ends with its process, however that ends."""

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ucvgl.errors import InputError


@contextmanager
def locked(path: Path, *, wait: bool, busy: str) -> Iterator[IO[str]]:
    """Holds the operating system's lock on a file: it ends with its process, however that ends.

    Args:
        path: the lock file; made if need be, never removed.
        wait: wait for the lock (saying so on stderr), or raise InputError if another process has it.
        busy: what that other process is doing, as a clause.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise InputError(
                    path.parent, expected="no other process at work here", found=busy, todo="Wait for it, or end it."
                ) from None
            sys.stderr.write(f"{busy}: waiting for it\n")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
