# SPDX-License-Identifier: Apache-2.0
"""In a mount namespace of its own: fill the disk under a store, make room again, compare."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from store_sites import SqliteSite

from epic.errors import StorageFull
from epic.store.objects import Key, Put


async def main(disk: Path) -> None:
    """Raises AssertionError when something was lost."""
    site = SqliteSite(disk / "objects.db")
    store = await site.open()
    stored: set[Key] = set()
    ballast = disk / "ballast"
    refused = 0
    for number in range(600):
        if number == 100:
            ballast.write_bytes(b"")
            fill(ballast)
        if number == 400:
            ballast.unlink()
        key = Key("GWRoute", "shop", f"r{number}")
        try:
            await store.commit(Put(key, b"x" * 2000, 0))
            stored.add(key)
        except StorageFull:
            refused += 1
        assert number < 400 or key in stored, "it does not recover"
    assert refused > 50, f"the disk was never full: {refused} writes were refused"
    await site.close_all()
    again = await site.open()
    assert {found.key for found in (await again.list("GWRoute")).items} == stored
    await site.close_all()


def fill(path: Path) -> None:
    """Take all the room that is left."""
    try:
        with path.open("ab", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
    except OSError:
        pass


if __name__ == "__main__":
    mounted = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mounted)], check=True)
    asyncio.run(main(mounted))
