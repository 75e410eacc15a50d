# SPDX-License-Identifier: Apache-2.0
"""Names that several parts must form alike."""

from __future__ import annotations

import hashlib
import re
from ipaddress import IPv4Address
from typing import Annotated, NamedTuple

from pydantic import StringConstraints

ACCOUNT_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"
OBJECT_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"

AccountName = Annotated[str, StringConstraints(pattern=ACCOUNT_PATTERN)]
"""A DNS label: letters a-z, digits and inner dashes; at most 40, so that a UID fits into the gateway id."""

ObjectName = Annotated[str, StringConstraints(pattern=OBJECT_PATTERN)]
"""Letters, digits and inner `-`, `_`, `.`, at most 63; a Gateway's UID or sharing key, for example."""

CONTROLLER_NAME = "epic-gateway.org/puregw"
"""Of GatewayClasses that are EPIC's."""

COMPATIBILITY = "compatibility"
"""The class, and the listener, of a gateway whose client names none."""

GUE_PORT = 6080
"""UDP; EPIC nodes listen there, workload nodes also on the ports of their further lanes."""

NODE_TUNNELS = 16384
"""For how many tunnels the kernel of an EPIC node has room."""

NODE_ENDPOINTS = 229376
"""So many endpoints an EPIC node gets, each once for each instance with a tunnel to it.

Its kernel has room for an eighth more, since what comes is there for a moment together with what goes.
"""

GATEWAY_ID_MAX = 77
"""Characters of a gateway id: Envoy's admin socket carries it, and Unix socket paths have at most 107."""

_OBJECT = re.compile(OBJECT_PATTERN)


class GatewayId(NamedTuple):
    """Which gateway, cluster-wide: written `ACCOUNT.PROXY` in units, namespaces, paths and xDS."""

    account: str
    proxy: str

    def __str__(self) -> str:
        return f"{self.account}.{self.proxy}"

    @property
    def envoy_node_id(self) -> str:
        """Envoy's `node.id`, the original's `<namespace>.<proxy>`."""
        return f"epic-{self.account}.{self.proxy}"

    @classmethod
    def parse(cls, text: str) -> GatewayId:
        """The inverse of `str`; an account holds no dot, so the first one separates."""
        account, dot, proxy = text.partition(".")
        if not dot or not re.fullmatch(ACCOUNT_PATTERN, account) or not _OBJECT.fullmatch(proxy):
            raise ValueError(f"{text!r} is no gateway id; it is written ACCOUNT.PROXY")
        return cls(account, proxy)


def instance_interface(gateway: str, inside: IPv4Address) -> str:
    """Name of the host-side interface of a gateway's instance (15 characters); `gateway` is a gateway id.

    The gateway is in it, so that no interface is taken for that of another one that got the address later.
    """
    return f"epg{int(inside):08x}{hashlib.blake2b(gateway.encode(), digest_size=2).hexdigest()}"


INSTANCE_INTERFACE = re.compile(r"epg[0-9a-f]{12}")
"""What all names of `instance_interface` look like."""


def network_namespace(gateway: str) -> str:
    """Name of the network namespace of a gateway's instance; `gateway` is a gateway id."""
    return f"epic-{gateway}"


def is_object_name(text: str) -> bool:
    """Whether `text` can name an object of an account."""
    return _OBJECT.fullmatch(text) is not None


SOURCES_ANNOTATION = "puregw.epic-gateway.org/sources"
"""Which hosts of a client ask for an object, CLUSTER/HOST by commas; what the first wants counts."""
SOURCES_PATTERN = r"(?:[\w.:@-]+/[\w.:@-]+(?:,[\w.:@-]+/[\w.:@-]+)*)?"
SOURCES_MAX = 8192


def sources_of(annotation: str) -> frozenset[str]:
    """The hosts that the annotation names, as CLUSTER/HOST."""
    return frozenset(filter(None, annotation.split(",")))
