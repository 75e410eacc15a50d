# SPDX-License-Identifier: Apache-2.0
"""Signs workload nodes' certificates in threads of their own: a disk that hangs keeps nobody else waiting."""

from __future__ import annotations

from epic.ads.identity.issuer import Issuer
from epic.proto import epic_pb2
from epic.workqueue.threads import ThreadPool

_AT_ONCE = 2
_threads = ThreadPool("workload-certificates", _AT_ONCE)


async def sign(issuer: Issuer, uri: str, request: bytes) -> epic_pb2.RenewCertificateReply:
    """A certificate for the workload node whom the URI names; raises what `Issuer.issue_workload` does."""
    return await _threads.run(issuer.issue_workload, uri, request)


async def issuer_certificate(issuer: Issuer) -> str:
    """That of the authority which signs them, PEM; raises OSError."""
    return await _threads.run(issuer.certificate.read_text)
