# SPDX-License-Identifier: Apache-2.0
"""Files that survive a power cut: the old content or the new, never a part."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def write_atomically(path: Path, content: bytes | Iterable[bytes], mode: int = 0o600) -> None:
    """Replace `path` by `content` (whole or in parts), durable at return."""
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        with os.fdopen(descriptor, "wb", closefd=False) as stream:
            stream.writelines([content] if isinstance(content, bytes) else content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
