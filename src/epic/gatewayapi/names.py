# SPDX-License-Identifier: Apache-2.0
"""What Envoy's resources are called: each name is a function of what it stands for, and of nothing else.

Two things never have one name, whatever text tenants choose, and no text makes a name of another kind: parts
that tenants choose are percent-encoded, so the slashes in a name are ours.
"""

from __future__ import annotations

from urllib.parse import quote

AGENT_CLUSTER = "epic-agent"
"""The one cluster of every Envoy's bootstrap, which leads to the node's agent."""

_SERVICE = "svc"
_MISSING = "missing"
_HOST = "host"
_PORT = "port"
_RESERVED = ("epic-", *(f"{prefix}/" for prefix in (_SERVICE, _MISSING, _HOST, _PORT)))


def cluster_name(service: str, port: int | None) -> str:
    """The cluster of a port of a Service (by UID): `svc/UID/PORT`, or `svc/UID` for a Service's only port."""
    return _joined(_SERVICE, service, *([] if port is None else [str(port)]))


def missing_name(kind: str, name: str, group: str = "") -> str:
    """What stands for a backend that does not exist; no cluster has such a name."""
    return _joined(_MISSING, kind, name, *([group] if group else []))


def host_name(hostname: str) -> str:
    """The virtual host of a hostname."""
    return _joined(_HOST, hostname)


def port_name(number: int) -> str:
    """The listener of a port, and its route configuration: `port/80`.

    The protocol is no part of it: Envoy refuses a second listener on an address while the first is there.
    """
    return _joined(_PORT, str(number))


def is_reserved(name: str) -> bool:
    """Whether only EPIC gives such names; those of what is in the bootstrap are among them."""
    return name.startswith(_RESERVED)


def _joined(prefix: str, *parts: str) -> str:
    # Lone surrogates have no UTF-8; they must not make two names one, nor end the translation.
    return "/".join((prefix, *(quote(part, safe="*", errors="surrogatepass") for part in parts)))
