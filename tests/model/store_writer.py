# SPDX-License-Identifier: Apache-2.0
"""A process that writes as fast as it can, and says on standard output which commits were acknowledged.

CLIENTS clients each write three objects with the same number again and again. A line: CLIENT NUMBER REVISION.
"""

from __future__ import annotations

import asyncio
import os
import sys

from store_sites import SCHEMA

from epic.errors import NotFound
from epic.store.location import StoreLocation, open_engine
from epic.store.object_store import ObjectStore
from epic.store.objects import Key, Put

CLIENTS = 50


def keys_of(client: int) -> list[Key]:
    """The objects that change together."""
    return [
        Key("GWRoute", "shop", f"r{client}"),
        Key("GWService", "other", f"s{client}"),
        Key("Node", "", f"n{client}"),
    ]


async def found_of(store: ObjectStore, client: int) -> set[tuple[int, int]]:
    """The numbers and revisions of a client's objects; (0, 0) of those that do not exist."""
    found = set()
    for key in keys_of(client):
        try:
            stored = await store.get(key)
        except NotFound:
            found.add((0, 0))
        else:
            found.add((int(stored.body.split(b" ")[0]), stored.revision))
    return found


async def _write(store: ObjectStore, client: int) -> None:
    ((number, revision),) = await found_of(store, client)
    while True:
        number += 1
        body = b"%d " % number + b"x" * 1000
        revision = await store.commit(*(Put(key, body, revision) for key in keys_of(client)))
        os.write(1, f"{client} {number} {revision}\n".encode())


async def _main(location: StoreLocation) -> None:
    store = ObjectStore(await open_engine(location), SCHEMA)
    await asyncio.gather(*(_write(store, client) for client in range(CLIENTS)))


if __name__ == "__main__":
    asyncio.run(_main(StoreLocation.model_validate_json(sys.argv[1])))
