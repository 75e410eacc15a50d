# SPDX-License-Identifier: Apache-2.0
"""An agent's identity: its key and its certificate in one file, so that they are replaced together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from epic.pki import certificates as certs
from epic.pki import directory as files
from epic.pki.directory import PkiError


@dataclass(frozen=True)
class Identity:
    """A key and the certificate of it."""

    key: EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def name(self) -> str:
        """The node that it is for."""
        return certs.common_name(self.certificate.subject)

    def pem(self) -> bytes:
        """The file."""
        return files.key_pem(self.key) + files.certificate_pem(self.certificate)


def read_identity(path: Path) -> Identity | None:
    """The identity in the file, or None if there is no such file; raises PkiError."""
    # At once: it may be replaced meanwhile.
    pem = files.read_file(path)
    if pem is None:
        return None
    key, certificate = files.parse_key(path, pem), files.parse_certificate(path, pem)
    if not certs.is_of(certificate, key.public_key()):
        raise PkiError(f"{path} holds a certificate of another key")
    return Identity(key, certificate)
