# SPDX-License-Identifier: Apache-2.0
"""What a client wants to exist on EPIC, as bodies of the REST API. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from epic.controller.objects import Problem, Ref
from epic.kinds.registry import KINDS

Collection = Literal["proxies", "members", "slices", "routes"]


@dataclass(frozen=True)
class EpicConnection:
    """An account on an EPIC server, and the name that the client's cluster has there."""

    server: str
    account: str
    username: str
    password: str = field(repr=False)
    cluster: str


class Address(NamedTuple):
    """Where an object is on EPIC, whoever asks for it."""

    server: str
    account: str
    collection: Collection
    uid: str

    @property
    def path(self) -> str:
        """Its path in the REST API."""
        return f"/api/epic/accounts/{self.account}/{self.collection}/{self.uid}"


@dataclass(frozen=True)
class Item:
    """An object to be on EPIC; a Gateway with a sharing key is a member of the gateway of that name."""

    connection: EpicConnection
    collection: Collection
    uid: str
    ref: Ref
    source: str
    spec: dict[str, Any]
    group: str = ""

    @cached_property
    def address(self) -> Address:
        """Where it is on EPIC."""
        return Address(self.connection.server, self.connection.account, self.collection, self.uid)

    @cached_property
    def gateway(self) -> Address:
        """Of a Gateway, the gateway that it is on EPIC, alone or with others."""
        if self.collection != "members":
            return self.address
        return self.address._replace(collection="proxies", uid=str(self.spec["sharing-key"]))

    @property
    def create_path(self) -> str:
        """Where it is created."""
        account = f"/api/epic/accounts/{self.connection.account}"
        return (
            f"{account}/groups/{self.group}/{self.collection}"
            if self.group
            else f"{account}/{self.collection}"
        )

    @property
    def body(self) -> dict[str, Any]:
        """The body of its POST and PUT."""
        return {body_key(self.collection): {"spec": self.spec}}


@dataclass(frozen=True)
class Desired:
    """All that is to exist, and what could not be understood; objects of `held` are not to be deleted.

    `proxies` are Gateways, also those that share one.
    """

    proxies: tuple[Item, ...] = ()
    slices: tuple[Item, ...] = ()
    routes: tuple[Item, ...] = ()
    connections: tuple[EpicConnection, ...] = ()
    problems: tuple[Problem, ...] = ()
    held: frozenset[Ref] = frozenset()

    @property
    def items(self) -> tuple[Item, ...]:
        """Everything in the order of its creation."""
        return (*self.proxies, *self.slices, *self.routes)


def body_key(collection: Collection) -> str:
    """The key of an object of the collection in a body."""
    return KINDS.of_collection(collection).in_rest.key
