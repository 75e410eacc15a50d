# SPDX-License-Identifier: Apache-2.0
"""The ADS server's certificate, read anew when its files change: connections before and after go on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import grpc

from epic.pki import certificates as certs
from epic.pki.directory import PkiError, parse_certificate, parse_key

log = logging.getLogger(__name__)

Stamps = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class ServerFiles:
    """The server's key and certificate, and the authority that clients' certificates are of."""

    certificate: Path
    key: Path
    client_ca: Path

    def stamps(self) -> Stamps:
        """What changes when a file is replaced."""
        found = (path.stat() for path in (self.certificate, self.key, self.client_ca))
        return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in found)

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """What gRPC is to use from now on; raises OSError, and PkiError while one half is replaced."""
        key, certificate = self.key.read_bytes(), self.certificate.read_bytes()
        if not certs.is_of(
            parse_certificate(self.certificate, certificate), parse_key(self.key, key).public_key()
        ):
            raise PkiError(f"{self.certificate} is not of the key in {self.key}")
        return grpc.ssl_server_certificate_configuration([(key, certificate)], self.client_ca.read_bytes())


def server_credentials(files: ServerFiles) -> grpc.ServerCredentials:
    """Credentials that ask every client for a certificate; raises OSError and PkiError."""
    seen, told = files.stamps(), ""

    def changed() -> grpc.ServerCertificateConfiguration | None:
        # Asked by gRPC at each handshake; None: as before.
        nonlocal seen, told
        try:
            stamps = files.stamps()
            if stamps == seen:
                return None
            configuration = files.configuration()
        except (OSError, PkiError) as error:
            # Each handshake comes here, also of who has no certificate.
            if told != str(error):
                log.error("the server's certificate stays as it was: %s", error)
            told = str(error)
            return None
        seen, told = stamps, ""
        log.info("the server's certificate was read anew from %s", files.certificate)
        return configuration

    return grpc.dynamic_ssl_server_credentials(
        files.configuration(),
        changed,  # type: ignore[arg-type]  # None is allowed, and means what it says above
        require_client_authentication=True,
    )
