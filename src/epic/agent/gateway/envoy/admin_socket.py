# SPDX-License-Identifier: Apache-2.0
"""The way to the admin socket of an Envoy, in a directory where that Envoy may put whatever it likes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def opened(path: Path) -> Iterator[str]:
    """A path that leads to this socket and to no other; OSError also when there is something else.

    A link in its place could lead to another tenant's Envoy, or to any service that listens to root.
    """
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), str(path))
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
