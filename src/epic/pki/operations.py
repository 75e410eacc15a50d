"""What epic-pki does to a directory: each operation looks first, writes only what is missing, and tells."""

from __future__ import annotations

import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from epic.pki import certificates as certs
from epic.pki import directory as files
from epic.pki.directory import Owner, PkiError

RENEW_BEFORE = timedelta(days=30)
"""A certificate with less time left than this is replaced by the next playbook run."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Pki:
    """A directory of keys and certificates, at a moment; with `check` nothing is written."""

    path: Path
    now: datetime
    check: bool = False

    def write(self, name: str, content: bytes, mode: int, owner: Owner | None = None) -> None:
        """Write a file of the directory, unless only asked what would change."""
        if not self.check:
            files.write(self.path / name, content, mode, owner)

    @property
    def renewal(self) -> datetime:
        """A certificate that ends before this moment is renewed."""
        return self.now + RENEW_BEFORE

    def authority_certificate(self) -> x509.Certificate:
        """The certificate of the cluster's authority."""
        certificate = files.read_certificate(self.path / "ca.crt")
        if certificate is None:
            raise PkiError(
                f"{self.path / 'ca.crt'} is missing; `epic-pki control` on the control host makes it"
            )
        return certificate

    def authority(self) -> certs.Authority:
        """The cluster's authority with its key: only on the control host."""
        key = files.read_key(self.path / "ca.key")
        if key is None:
            raise PkiError(f"{self.path / 'ca.key'} is missing; certificates are signed on the control host")
        return certs.Authority(self.authority_certificate(), key)


def control(pki: Pki, names: Sequence[str], group: str | None, days: int) -> Result:
    """The authority and the server's certificate, made or renewed where needed."""
    changes: list[str] = []
    authority = _ensure_authority(pki, changes)
    owner = files.group_owner(group)
    key = _ensure_key(pki, "server.key", changes, files.GROUP_SECRET, owner)
    current = files.read_certificate(pki.path / "server.crt")
    wanted = {str(name) for name in names}
    if (
        current is None
        or certs.alternative_names(current) != wanted
        or not certs.serves(current, authority.certificate, key.public_key(), pki.renewal)
    ):
        made = certs.server_certificate(authority, key.public_key(), names, certs.Validity(pki.now, days))
        pki.write("server.crt", files.certificate_pem(made), files.PUBLIC)
        changes.append("server.crt")
    return {"changed": bool(changes), "written": changes}


def ssh_key(pki: Pki, path: Path, user: str) -> Result:
    """The key that runs log in to nodes with, owned by the control plane's user."""
    if path.exists():
        return {"changed": False}
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise PkiError(f"there is no user {user!r} on this host; the role base creates it") from None
    if not pki.check:
        files.write(path, files.new_ssh_key(), files.SECRET, Owner(account.pw_uid, account.pw_gid))
    return {"changed": True}


def request(pki: Pki, name: str) -> Result:
    """The agent's request for a certificate, or none when it has a good one."""
    changes: list[str] = []
    key = _ensure_key(pki, "agent.key", changes, files.SECRET)
    current = files.read_certificate(pki.path / "agent.crt")
    if (
        current is not None
        and certs.common_name(current.subject) == name
        and certs.serves(current, pki.authority_certificate(), key.public_key(), pki.renewal)
    ):
        return {"changed": False, "request": None}
    made = certs.agent_request(key, name).public_bytes(Encoding.PEM)
    return {"changed": True, "request": made.decode()}


def sign(pki: Pki, name: str, pem: bytes, days: int) -> Result:
    """The certificate for a node's request. The authority keeps no record of it."""
    try:
        asked = x509.load_pem_x509_csr(pem)
    except ValueError as error:
        raise PkiError(f"the input holds no PEM certificate request: {error}") from error
    made = certs.agent_certificate(pki.authority(), asked, name, certs.Validity(pki.now, days))
    return {"changed": False, "certificate": files.certificate_pem(made).decode()}


def install(pki: Pki, pem: bytes) -> Result:
    """Put the agent's signed certificate in place, if it is of this node's key and this cluster."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise PkiError(f"the input holds no PEM certificate: {error}") from error
    key = files.read_key(pki.path / "agent.key")
    if key is None:
        raise PkiError(f"{pki.path / 'agent.key'} is missing; `epic-pki csr` on this node makes it")
    if not certs.serves(certificate, pki.authority_certificate(), key.public_key(), pki.now):
        raise PkiError("the certificate is not for this node's key, or not of this cluster's authority")
    pki.write("agent.crt", files.certificate_pem(certificate), files.PUBLIC)
    return {"changed": True}


def public(pki: Pki, run_key: Path) -> Result:
    """What nodes must know of the control host: the authority's certificate and the runs' public key."""
    if not run_key.exists():
        raise PkiError(f"{run_key} is missing; the role control_plane makes it")
    ca = files.certificate_pem(pki.authority_certificate()).decode()
    return {"changed": False, "ca": ca, "run_key": files.ssh_public_key(run_key)}


def _ensure_authority(pki: Pki, changes: list[str]) -> certs.Authority:
    key = _ensure_key(pki, "ca.key", changes, files.SECRET)
    certificate = files.read_certificate(pki.path / "ca.crt")
    if certificate is not None and certs.serves(certificate, certificate, key.public_key(), pki.renewal):
        return certs.Authority(certificate, key)
    authority = certs.make_authority(key, "EPIC cluster authority", pki.now)
    pki.write("ca.crt", files.certificate_pem(authority.certificate), files.PUBLIC)
    changes.append("ca.crt")
    return authority


def _ensure_key(
    pki: Pki, name: str, changes: list[str], mode: int, owner: Owner | None = None
) -> EllipticCurvePrivateKey:
    key = files.read_key(pki.path / name)
    if key is not None:
        return key
    key = files.new_key()
    pki.write(name, files.key_pem(key), mode, owner)
    changes.append(name)
    return key
