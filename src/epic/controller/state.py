# SPDX-License-Identifier: Apache-2.0
"""What a controller made on EPIC, kept in a file: only so can it delete, after a restart, what is gone."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from epic.controller.desired import Address, Desired, EpicConnection, Item
from epic.controller.objects import Ref
from epic.errors import Unavailable


@dataclass(frozen=True)
class Owned:
    """An object on EPIC that the controller made."""

    address: Address
    ref: Ref
    cluster: str
    shared: bool = False

    @classmethod
    def of(cls, item: Item) -> Owned:
        """The note of an item."""
        return cls(item.address, item.ref, item.connection.cluster, item.shared)


@dataclass(frozen=True)
class State:
    """All that was made, and the latest credentials for it: its configuration may go together with it."""

    owned: tuple[Owned, ...] = ()
    logins: dict[tuple[str, str], EpicConnection] = field(default_factory=dict)

    def with_desired(self, desired: Desired) -> State:
        """With what is about to be made."""
        owned = {o.address: o for o in self.owned} | {i.address: Owned.of(i) for i in desired.items}
        logins = self.logins | {(c.server, c.account): c for c in desired.connections}
        return _state(owned.values(), logins)

    def without(self, owned: Owned) -> State:
        """Without what was deleted."""
        return _state((o for o in self.owned if o.address != owned.address), self.logins)

    def login(self, owned: Owned) -> EpicConnection:
        """How to reach the object's account."""
        return self.logins[owned.address.server, owned.address.account]


def _state(owned: Any, logins: dict[tuple[str, str], EpicConnection]) -> State:
    kept = tuple(sorted(owned, key=lambda o: o.address))
    needed = {(o.address.server, o.address.account) for o in kept}
    return State(kept, {key: login for key, login in logins.items() if key in needed})


class StateFile:
    """The file; only root reads it, for it holds credentials."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> State:
        """The state; an empty one where there is no file."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            return _decode(content)
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(
                f"{self._path}: the controller's state cannot be read ({error}); if you remove the file, "
                "what was made on EPIC earlier is no longer deleted by itself"
            ) from error

    def write(self, state: State) -> None:
        """Replace the file, durable at return."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._path.with_name(f".{self._path.name}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(_encode(state), stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        new.rename(self._path)


def _encode(state: State) -> dict[str, Any]:
    owned = [
        o.address._asdict() | {"ref": list(o.ref), "cluster": o.cluster, "shared": o.shared}
        for o in state.owned
    ]
    return {"owned": owned, "logins": [asdict(login) for login in state.logins.values()]}


def _decode(content: dict[str, Any]) -> State:
    owned = [
        Owned(
            Address(o["server"], o["account"], o["collection"], o["uid"]),
            Ref(*o["ref"]),
            o["cluster"],
            o["shared"],
        )
        for o in content["owned"]
    ]
    logins = [EpicConnection(**login) for login in content["logins"]]
    return State(tuple(owned), {(login.server, login.account): login for login in logins})
