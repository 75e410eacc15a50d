# SPDX-License-Identifier: Apache-2.0
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
from epic.pki.identity import Identity, read_identity

IDENTITY = "agent.pem"
RENEW_LEFT = 1 / 3
"""The part of its life that a certificate of the control host has left when it is renewed."""
REPLACE_LEFT = 1 / 6
"""An agent renews its certificate long before; with less left it could not, and is given another one."""

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

    def certificate(self, name: str) -> x509.Certificate:
        """The certificate of an authority, `ca` or `agents`."""
        path = self.path / f"{name}.crt"
        certificate = files.read_certificate(path)
        if certificate is None:
            raise PkiError(f"{path} is missing; `epic-pki control` on the control host makes it")
        return certificate

    def agents_authority(self) -> certs.Authority:
        """The authority of agents with its key: only on the control host."""
        path = self.path / "agents.key"
        key = files.read_key(path)
        if key is None:
            raise PkiError(f"{path} is missing; certificates are signed on the control host")
        return certs.Authority(self.certificate("agents"), key)


def control(pki: Pki, names: Sequence[str], group: str | None, life: timedelta) -> Result:
    """The two authorities and the server's certificate, made or renewed where needed.

    The cluster's authority signs for servers, and its key is root's. The agents' signs for agents and nothing
    else, and its key is the group's: the control plane renews their certificates with it.
    """
    changes: list[str] = []
    owner = files.group_owner(group)
    authority = _ensure_authority(pki, "ca", "EPIC cluster authority", changes)
    _ensure_authority(pki, "agents", "EPIC agents' authority", changes, files.GROUP_SECRET, owner)
    key = _ensure_key(pki, "server.key", changes, files.GROUP_SECRET, owner)
    current = files.read_certificate(pki.path / "server.crt")
    wanted = {str(name) for name in names}
    if (
        current is None
        or certs.alternative_names(current) != wanted
        or not _is_good(pki, current, authority, key)
    ):
        made = certs.server_certificate(authority, key.public_key(), names, certs.Validity(pki.now, life))
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


def request(pki: Pki, name: str, *, renew: bool = False) -> Result:
    """The agent's request for a certificate, of a new key; none when it has a good one, unless to `renew`."""
    current = _identity(pki)
    if (
        not renew
        and current is not None
        and current.name == name
        and certs.issued_by(current.certificate, pki.certificate("agents"))
        and not certs.is_due(current.certificate, pki.now, REPLACE_LEFT)
    ):
        return {"changed": False, "request": None}
    key = files.new_key()
    pki.write("agent.key", files.key_pem(key), files.SECRET)
    made = certs.agent_request(key, name).public_bytes(Encoding.PEM)
    return {"changed": True, "request": made.decode()}


def sign(pki: Pki, name: str, pem: bytes, life: timedelta) -> Result:
    """The certificate for a node's request. The authority keeps no record of it."""
    made = certs.agent_certificate(pki.agents_authority(), certs.read_request(pem), name, pki.now, life)
    return {"changed": False, "certificate": files.certificate_pem(made).decode()}


def install(pki: Pki, pem: bytes) -> Result:
    """Put the agent's certificate for its last request in place, together with the key."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise PkiError(f"the input holds no PEM certificate: {error}") from error
    key = files.read_key(pki.path / "agent.key")
    if key is None:
        raise PkiError(f"{pki.path / 'agent.key'} is missing; `epic-pki csr` on this node makes it")
    if not certs.is_of(certificate, key.public_key()):
        raise PkiError("the certificate is not for this node's last request")
    if not certs.issued_by(certificate, pki.certificate("agents")):
        raise PkiError("the certificate is not of this cluster's authority")
    pki.write(IDENTITY, Identity(key, certificate).pem(), files.SECRET)
    if not pki.check:
        (pki.path / "agent.key").unlink()
    return {"changed": True, **_life(certificate)}


def show(pki: Pki) -> Result:
    """From when until when the agent's certificate is valid, in seconds since 1970; raises PkiError."""
    identity = read_identity(pki.path / IDENTITY)
    if identity is None:
        raise PkiError(f"{pki.path / IDENTITY} is missing; site.yml gives the node a certificate")
    return {"changed": False, **_life(identity.certificate)}


def public(pki: Pki, run_key: Path) -> Result:
    """What nodes must know of the control host: the authorities' certificates and the runs' public key."""
    if not run_key.exists():
        raise PkiError(f"{run_key} is missing; the role control_plane makes it")
    known = {name: files.certificate_pem(pki.certificate(name)).decode() for name in ("ca", "agents")}
    return {"changed": False, **known, "run_key": files.ssh_public_key(run_key)}


def _ensure_authority(
    pki: Pki, name: str, title: str, changes: list[str], mode: int = files.SECRET, owner: Owner | None = None
) -> certs.Authority:
    key = _ensure_key(pki, f"{name}.key", changes, mode, owner)
    certificate = files.read_certificate(pki.path / f"{name}.crt")
    if certificate is not None and _is_good(pki, certificate, certs.Authority(certificate, key), key):
        return certs.Authority(certificate, key)
    authority = certs.make_authority(key, title, pki.now)
    pki.write(f"{name}.crt", files.certificate_pem(authority.certificate), files.PUBLIC)
    changes.append(f"{name}.crt")
    return authority


def _is_good(
    pki: Pki, certificate: x509.Certificate, authority: certs.Authority, key: EllipticCurvePrivateKey
) -> bool:
    """Whether the control host may keep the certificate."""
    return (
        certs.is_of(certificate, key.public_key())
        and certs.issued_by(certificate, authority.certificate)
        and not certs.is_due(certificate, pki.now, RENEW_LEFT)
    )


def _identity(pki: Pki) -> Identity | None:
    """The agent's identity; a damaged one counts as none."""
    try:
        return read_identity(pki.path / IDENTITY)
    except PkiError:
        return None


def _life(certificate: x509.Certificate) -> Result:
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return {"not_before": int(since.timestamp()), "not_after": int(until.timestamp())}


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
