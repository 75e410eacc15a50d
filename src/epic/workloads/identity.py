# SPDX-License-Identifier: Apache-2.0
"""Who a workload node is: what its certificate says, and how long that counts."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, unquote

from cryptography import x509

from epic.ads.delta.connection import Refusal
from epic.ads.delta.kept import Context
from epic.ads.identity.issuer import Issuer
from epic.live import Place
from epic.model.resources import Account, User
from epic.pki.certificates import uri_of
from epic.store.interface import Reader

_SCHEME = "epic-workload:"
_FINGERPRINT_BYTES = 16
# Certificates: a node shows its own with every call.
_REMEMBERED = 4096


@dataclass(frozen=True)
class WorkloadIdentity:
    """A node of a client's cluster, and the user with whose password it got its certificate.

    `credential` is the fingerprint of that password's hash: another password is another hash.
    """

    account: str
    cluster: str
    node: str
    user_account: str
    user: str
    credential: str

    @property
    def place(self) -> Place:
        """The node."""
        return Place(self.account, self.cluster, self.node)

    @property
    def uri(self) -> str:
        """It as it stands in a certificate, which holds ASCII only."""
        return _SCHEME + "/".join(quote(part, safe="") for part in astuple(self))


@dataclass(frozen=True)
class WorkloadCaller:
    """Whom the certificate of a connection names, and until when it is valid."""

    identity: WorkloadIdentity
    until: datetime


@dataclass(frozen=True)
class Enrolment:
    """What a node gets that shows its account's credential: who signs for it, and where it is served."""

    issuer: Issuer
    port: int


def read_uri(uri: str) -> WorkloadIdentity | None:
    """The identity of a certificate; None when the certificate is for something else."""
    parts = [unquote(part) for part in uri.removeprefix(_SCHEME).split("/")]
    if not uri.startswith(_SCHEME) or len(parts) != len(WorkloadIdentity.__match_args__):
        return None
    return WorkloadIdentity(*parts)


def fingerprint(user: User) -> str:
    """Of the user's password: it tells nothing of it, and changes with it."""
    return hashlib.blake2b(user.spec.password_hash.encode(), digest_size=_FINGERPRINT_BYTES).hexdigest()


def workload_caller(context: Context) -> WorkloadCaller | None:
    """The workload node that has opened the connection; None when it is none."""
    shown = context.auth_context().get("x509_pem_cert")
    if not shown:
        return None
    return _read_certificate(next(iter(shown)))


def refuse_others(context: Context) -> Refusal | None:
    """Why the caller is no workload node at all, or None."""
    if workload_caller(context) is not None:
        return None
    return Refusal("no certificate of a workload node")


@lru_cache(maxsize=_REMEMBERED)
def _read_certificate(pem: bytes) -> WorkloadCaller | None:
    certificate = x509.load_pem_x509_certificate(pem)
    identity = read_uri(uri_of(certificate))
    return WorkloadCaller(identity, certificate.not_valid_after_utc) if identity is not None else None


class WorkloadAuthorizer:
    """Looks at the store at every question: an account, user or password that is gone counts from then on."""

    def __init__(self, store: Reader) -> None:
        self._store = store

    def __call__(self, name: str, context: Context) -> Refusal | None:
        """Why the caller may not speak for this node, or None."""
        found = workload_caller(context)
        if found is None or found.identity.place.id != name:
            return Refusal(f"the certificate is not that of workload node {name!r}")
        return self.refusal(found)

    def refusal(self, found: WorkloadCaller) -> Refusal | None:
        """Why the certificate is worth nothing now, or None."""
        identity = found.identity
        if found.until < datetime.now(UTC):
            return Refusal("the certificate has ended; the node gets another with its account's credential")
        if not self._store.exists(Account, "", identity.account):
            return Refusal(f"account {identity.account!r} does not exist")
        user = self._store.find_readable(User, identity.user_account, identity.user)
        if user is None or fingerprint(user) != identity.credential:
            return Refusal(
                f"user {identity.user!r}, for whom the certificate was made, was changed or deleted"
            )
        if user.account != identity.account and not user.spec.admin:
            return Refusal(f"user {identity.user!r} does not belong to account {identity.account!r}")
        if user.spec.cluster_ids and identity.cluster not in user.spec.cluster_ids:
            return Refusal(f"user {identity.user!r} does not speak for cluster {identity.cluster!r}")
        return None
