# SPDX-License-Identifier: Apache-2.0
"""What a controller made on EPIC, kept in a file: only so can it delete, after a restart, what is gone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from epic.controller.desired import Address, EpicConnection, Item
from epic.controller.objects import Ref
from epic.errors import Unavailable


class Place(NamedTuple):
    """Which directory it is: another file system mounted over it, or none any more, is another one."""

    device: int
    inode: int


@dataclass(frozen=True)
class Owned:
    """An object on EPIC that the controller made, and the file that asked for it."""

    address: Address
    ref: Ref
    cluster: str
    source: str = ""

    @classmethod
    def of(cls, item: Item) -> Owned:
        """The note of an item."""
        return cls(item.address, item.ref, item.connection.cluster, item.source)

    @cached_property
    def text(self) -> str:
        """The note as JSON: of many notes that are written anew most are as they were."""
        note = {"ref": list(self.ref), "cluster": self.cluster, "source": self.source}
        return json.dumps(self.address._asdict() | note)


@dataclass(frozen=True)
class State:
    """All that was made, and the latest credentials for it: its configuration may go together with it.

    `place` is the directory that asked for it.
    """

    owned: Mapping[Address, Owned] = field(default_factory=dict)
    logins: Mapping[tuple[str, str], EpicConnection] = field(default_factory=dict)
    place: Place | None = None

    def with_items(self, items: Iterable[Item], connections: Iterable[EpicConnection]) -> State:
        """With what is about to be made, and with credentials as they are now."""
        made = {item.address: Owned.of(item) for item in items}
        owned = {**self.owned, **made} if any(self.owned.get(a) != o for a, o in made.items()) else self.owned
        needed = {(address.server, address.account) for address in made} | self.logins.keys()
        logins = {key: c for c in connections if (key := (c.server, c.account)) in needed}
        return State(owned, {**self.logins, **logins}, self.place)

    def without(self, gone: Iterable[Address]) -> State:
        """Without what was deleted."""
        left = set(gone)
        owned = {address: one for address, one in self.owned.items() if address not in left}
        needed = {(address.server, address.account) for address in owned}
        return State(owned, {key: login for key, login in self.logins.items() if key in needed}, self.place)

    def login(self, owned: Owned) -> EpicConnection:
        """How to reach the object's account."""
        return self.logins[owned.address.server, owned.address.account]


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
        """Replace the file, durable at return; raises Unavailable where it cannot be."""
        new = self._path.with_name(f".{self._path.name}.new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(_encode(state))
                stream.flush()
                os.fsync(stream.fileno())
            new.rename(self._path)
        except OSError as error:
            raise Unavailable(f"{self._path}: cannot be written: {error.strerror}") from error


def _encode(state: State) -> str:
    owned = ",\n".join(one.text for one in state.owned.values())
    logins = json.dumps([asdict(login) for login in state.logins.values()])
    place = json.dumps(list(state.place) if state.place else None)
    return f'{{"owned": [{owned}],\n"logins": {logins},\n"place": {place}}}\n'


def _decode(content: dict[str, Any]) -> State:
    owned = [
        Owned(
            Address(o["server"], o["account"], o["collection"], o["uid"]),
            Ref(*o["ref"]),
            o["cluster"],
            o.get("source", ""),
        )
        for o in content["owned"]
    ]
    logins = [EpicConnection(**login) for login in content["logins"]]
    place = content.get("place")
    return State(
        {o.address: o for o in owned},
        {(login.server, login.account): login for login in logins},
        Place(*place) if place else None,
    )
