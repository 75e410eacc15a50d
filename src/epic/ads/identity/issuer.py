# SPDX-License-Identifier: Apache-2.0
"""Signs the certificates that agents ask for before theirs end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from epic.pki import certificates as certs
from epic.pki import directory as files
from epic.proto import epic_pb2

AGENT_LIFE = timedelta(hours=24)


@dataclass(frozen=True)
class Issuer:
    """The agents' authority. Its files are read at each use, so another authority needs no restart."""

    certificate: Path
    key: Path
    ca: Path
    """The authorities that agents are to trust."""
    life: timedelta = AGENT_LIFE

    def renew(self, node: str, request: bytes) -> epic_pb2.RenewCertificateReply:
        """A new certificate for the node; raises RequestError, PkiError and OSError. Blocks."""
        key, certificate = files.read_key(self.key), files.read_certificate(self.certificate)
        if key is None or certificate is None:
            raise files.PkiError(
                f"{self.key} or {self.certificate} is missing; `epic-pki control` makes them"
            )
        authority = certs.Authority(certificate, key)
        now = datetime.now(UTC).replace(microsecond=0)
        made = certs.agent_certificate(authority, certs.read_request(request), node, now, self.life)
        return epic_pb2.RenewCertificateReply(
            certificate=files.certificate_pem(made), authorities=self.ca.read_bytes()
        )
