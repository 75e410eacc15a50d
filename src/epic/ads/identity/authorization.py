# SPDX-License-Identifier: Apache-2.0
"""Who may speak for a node: the bearer of a certificate in its name that was not revoked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from epic.ads.delta.connection import Refusal
from epic.ads.delta.kept import Context
from epic.errors import Damaged
from epic.model.nodes import NodeRevocation
from epic.pki.certificates import common_name
from epic.store.interface import Reader


@dataclass(frozen=True)
class Caller:
    """Whom the certificate of a connection names, and since and until when it is valid."""

    name: str
    since: datetime
    until: datetime


def caller(context: Context) -> Caller | None:
    """Who has opened the connection; None without a certificate."""
    shown = context.auth_context().get("x509_pem_cert")
    if not shown:
        return None
    certificate = x509.load_pem_x509_certificate(next(iter(shown)))
    return Caller(
        common_name(certificate.subject), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    )


def client_name(context: Context) -> str:
    """Who has opened the connection, by name; empty without a certificate."""
    found = caller(context)
    return found.name if found is not None else ""


def refuse_nameless(context: Context) -> Refusal | None:
    """Why the caller is no EPIC node at all, or None; workload nodes have the same authority."""
    if client_name(context):
        return None
    return Refusal("the certificate names no EPIC node; workload nodes are served at cluster_workload_port")


class Authorizer:
    """Looks at the store at every question, so that a revocation counts from the moment it is written."""

    def __init__(self, store: Reader, is_known: Callable[[str], bool]) -> None:
        self._store = store
        self._is_known = is_known

    def __call__(self, node_id: str, context: Context) -> Refusal | None:
        """Why the caller may not speak for the node, or None."""
        found = caller(context)
        if found is None or not node_id or found.name != node_id:
            name = found.name if found is not None else "nobody"
            return Refusal(f"the certificate is for {name}, not for node {node_id!r}")
        if found.until < datetime.now(UTC):
            return Refusal(f"the certificate of node {node_id} ended at {_text(found.until)}")
        try:
            revocation = self._store.find(NodeRevocation, "", node_id)
        except Damaged as error:
            # Whether it was removed is not known: nobody else is to suffer from that.
            return Refusal(f"node {node_id}: {error}")
        if revocation is not None and found.since <= revocation.spec.before:
            when = _text(revocation.spec.before)
            message = f"node {node_id} was removed at {when}, after its certificate was made"
            return Refusal(f"{message}; site.yml makes the host a node again", removed=True)
        if not self._is_known(node_id):
            return Refusal(f"node {node_id} is not registered; site.yml registers it")
        return None


def _text(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
