# SPDX-License-Identifier: Apache-2.0
"""Signs the certificates that agents ask for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

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
        made = certs.agent_certificate(
            self._authority(), certs.read_request(request), node, self._now(), self.life
        )
        return self._reply(made)

    def issue_workload(self, uri: str, request: bytes) -> epic_pb2.RenewCertificateReply:
        """A certificate for the workload node whom the URI names; raises the same. Blocks."""
        made = certs.workload_certificate(
            self._authority(), certs.read_request(request), uri, self._now(), self.life
        )
        return self._reply(made)

    def _authority(self) -> certs.Authority:
        key, certificate = files.read_key(self.key), files.read_certificate(self.certificate)
        if key is None or certificate is None:
            raise files.PkiError(
                f"{self.key} or {self.certificate} is missing; `epic-pki control` makes them"
            )
        if not certs.is_of(certificate, key.public_key()):
            # Nobody would accept what is signed now.
            raise files.PkiError(
                f"{self.certificate} is not of the key in {self.key}; both are being replaced"
            )
        return certs.Authority(certificate, key)

    def _reply(self, made: x509.Certificate) -> epic_pb2.RenewCertificateReply:
        return epic_pb2.RenewCertificateReply(
            certificate=files.certificate_pem(made), authorities=self.ca.read_bytes()
        )

    @staticmethod
    def _now() -> datetime:
        return datetime.now(UTC).replace(microsecond=0)
