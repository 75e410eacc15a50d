# SPDX-License-Identifier: Apache-2.0
"""A process that writes by transactions of the control plane's store, and says what it has written."""

from __future__ import annotations

import os
import sys
import threading

from epic.cache.store import CachedStore
from epic.model.base import Metadata
from epic.model.resources import Account, AccountSpec, Node
from epic.store.location import StoreLocation

THREADS = 4


def state(store: CachedStore, writer: int) -> tuple[int, int]:
    """The two numbers that a writer always changes together; 0: not written yet."""
    account = store.find(Account, "", f"w{writer}")
    node = store.find(Node, "", f"w{writer}")
    return (account.spec.proxy_limit if account else 0), (node.spec.capacity if node else 0)


def _write(store: CachedStore, writer: int) -> None:
    while True:
        with store.transaction() as transaction:
            number = state(store, writer)[0] + 1
            account = transaction.find(Account, "", f"w{writer}")
            node = transaction.find(Node, "", f"w{writer}")
            spec = AccountSpec(proxy_limit=number)
            if account is None or node is None:
                transaction.create(Account(metadata=Metadata(name=f"w{writer}"), spec=spec))
                address = {"address": f"192.0.2.{writer}", "capacity": number}
                made = {"metadata": {"name": f"w{writer}"}, "spec": address}
                transaction.create(Node.model_validate(made))
            else:
                transaction.update(account.model_copy(update={"spec": spec}))
                changed = node.spec.model_copy(update={"capacity": number})
                transaction.update(node.model_copy(update={"spec": changed}))
        os.write(sys.stdout.fileno(), f"{writer} {number}\n".encode())


if __name__ == "__main__":
    opened = CachedStore(StoreLocation.model_validate_json(sys.argv[1]))
    for place in range(1, THREADS + 1):
        threading.Thread(target=_write, args=(opened, place)).start()
