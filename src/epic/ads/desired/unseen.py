# SPDX-License-Identifier: Apache-2.0
"""What nodes have of objects that cannot be read: it is not known what it is to be, so it stays as it is."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from epic.ads.desired.objects import KINDS, Inputs, ObjectIndex
from epic.ads.snapshot import ENDPOINT, LOAD_ASSIGNMENT, SIBLINGS, TUNNEL
from epic.errors import EpicError
from epic.model.base import Resource
from epic.model.members import GWMember
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute, LBServiceGroup, Node, Tunnel
from epic.model.siblings import Siblings
from epic.model.values.naming import GatewayId
from epic.store.objects import Unreadable

KEPT = EpicError(
    "Something that the configuration is made of cannot be read, so the former one stays; the platform's "
    "operators can see what it is"
)
"""Why a gateway keeps its configuration."""
_KINDS = frozenset({Siblings.kind, *(kind.kind for kind in KINDS)})


class Unseen:
    """The objects that could not be read when all were, until each can be read or is gone.

    What was read before that stays in memory as it was. Of a gateway that is frozen nothing is told; one that
    is behind lacks endpoints in what is told.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Unreadable] = {}
        self._frozen: dict[str, frozenset[str]] = {}
        """Gateways by their ids, and the tunnels of each."""
        self._behind: set[str] = set()

    def begin_anew(self, found: Iterable[Unreadable], tunnels: Iterable[Tunnel]) -> None:
        """All was read; of what could be read these are the tunnels."""
        self._found = {(u.key.kind, u.key.account, u.key.name): u for u in found if u.key.kind in _KINDS}
        of_gateway: defaultdict[GatewayId, set[str]] = defaultdict(set)
        for tunnel in tunnels:
            of_gateway[GatewayId(tunnel.account, tunnel.spec.proxy)].add(tunnel.name)
        self._frozen = {str(gateway): frozenset(of_gateway[gateway]) for gateway in self.gateways()}
        self._behind = set()

    def release(self, kind: str, account: str, name: str) -> bool:
        """The object can be read, or is gone; returns whether it was one of these."""
        return self._found.pop((kind, account, name), None) is not None

    def has(self, kind: type[Resource], account: str, name: str) -> bool:
        """Whether the object is there and cannot be read."""
        return (kind.kind, account, name) in self._found

    def gateways(self) -> set[GatewayId]:
        """The gateways that cannot be read."""
        return {GatewayId(account, name) for kind, account, name in self._found if kind == GWProxy.kind}

    def nodes(self) -> set[str]:
        """The EPIC nodes that cannot be read."""
        return {name for kind, _, name in self._found if kind == Node.kind}

    def hides(self, type_url: str, name: str) -> bool:
        """Whether a node that has a resource, and is not to have it by what is known, is to keep it."""
        if not (self._found or self._frozen or self._behind):
            return False
        if type_url == TUNNEL:
            unreadable = any(kind == Tunnel.kind and tunnel == name for kind, _, tunnel in self._found)
            return unreadable or any(name in tunnels for tunnels in self._frozen.values())
        gateway = name.partition("/")[0]
        if gateway in self._frozen:
            return True
        if type_url == SIBLINGS:
            lists = (GatewayId(*of) for kind, *of in self._found if kind == Siblings.kind)
            return gateway in map(str, lists)
        return type_url in {ENDPOINT, LOAD_ASSIGNMENT} and gateway in self._behind

    def keeps_configuration(self, inputs: Inputs, objects: ObjectIndex) -> bool:
        """Whether a configuration may be made of something that cannot be read."""
        proxy = inputs.proxy
        if not self._found:
            return False
        if self.has(LBServiceGroup, proxy.account, proxy.spec.group):
            return True
        routes, members = self._of(GWRoute, proxy.account), self._of(GWMember, proxy.account)
        if any(self._may_be_of(u, _gateways_of(u.value), proxy.id, objects) for u in routes):
            return True
        if any(self._may_be_of(u, _shared_by(u.value), proxy.id, objects) for u in members):
            return True
        return bool(self.services(inputs, objects))

    def services(self, inputs: Inputs, objects: ObjectIndex) -> frozenset[str]:
        """Those of the Services behind the gateway of which not all endpoints can be read."""
        account = inputs.proxy.account
        hidden: set[str] = set()
        for found in self._of(GWEndpointSlice, account):
            uid = _service_of(found.value)
            known = uid is not None and (found.newer or objects.is_backend(account, uid))
            hidden |= inputs.services & {uid} if known else inputs.services
        return frozenset(hidden)

    def _may_be_of(
        self, found: Unreadable, named: frozenset[str], gateway: GatewayId, objects: ObjectIndex
    ) -> bool:
        """Whether an object that names these gateways may be one of this gateway's.

        The names in damaged bytes may be damaged: they are believed if all are of gateways that there are.
        """
        account = gateway.account
        if not named or gateway.proxy in named:
            return True
        return not found.newer and any(
            objects.proxy(GatewayId(account, name)) is None and not self.has(GWProxy, account, name)
            for name in named
        )

    def freeze(self, inputs: Inputs) -> None:
        """Nothing is known that nodes could be told of the gateway."""
        self._frozen[str(inputs.proxy.id)] = inputs.tunnel_names

    def note(self, inputs: Inputs) -> bool:
        """What is told of the gateway is made of these now; returns whether less is hidden by that."""
        gateway = str(inputs.proxy.id)
        before = gateway in self._frozen or gateway in self._behind
        self._frozen.pop(gateway, None)
        self._behind.discard(gateway)
        if inputs.unseen or self._of(Tunnel, inputs.proxy.account):
            self._behind.add(gateway)
        return before and gateway not in self._behind

    def forget(self, gateway: GatewayId) -> bool:
        """The gateway is gone; returns whether anything of it was hidden."""
        hidden = self._frozen.pop(str(gateway), None) is not None or str(gateway) in self._behind
        self._behind.discard(str(gateway))
        return hidden

    def _of(self, kind: type[Resource], account: str) -> list[Unreadable]:
        return [u for (k, owner, _), u in self._found.items() if (k, owner) == (kind.kind, account)]


def _service_of(value: bytes) -> str | None:
    """The UID of the Service of a slice, by its stored bytes; None: they do not tell."""
    try:
        uid = _spec(value)["parentRef"]["uid"]
    except (ValueError, KeyError, TypeError):
        return None
    return uid if isinstance(uid, str) else None


def _gateways_of(value: bytes) -> frozenset[str]:
    """The names of the parents of a route, by its stored bytes; none: they do not tell."""
    try:
        # Whatever the protocol: a newer EPIC may know more of them.
        routes = [of for of in _spec(value).values() if isinstance(of, dict) and "parentRefs" in of]
        names = [parent["name"] for route in routes for parent in route["parentRefs"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return frozenset()
    return frozenset(names) if all(isinstance(name, str) for name in names) else frozenset()


def _shared_by(value: bytes) -> frozenset[str]:
    """The name of the gateway that a member shares, by its stored bytes; none: they do not tell."""
    try:
        name = _spec(value)["sharing-key"]
    except (ValueError, KeyError, TypeError):
        return frozenset()
    return frozenset({name}) if isinstance(name, str) else frozenset()


def _spec(value: bytes) -> Any:
    return json.loads(value.partition(b"\n")[2])["spec"]
