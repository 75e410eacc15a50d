# SPDX-License-Identifier: Apache-2.0
"""The files of /etc/epic/pki: read, and written whole with the right mode or not at all."""

from __future__ import annotations

import grp
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

SECRET = 0o600
GROUP_SECRET = 0o640
PUBLIC = 0o644


class PkiError(Exception):
    """A file that does not hold what its name promises."""


@dataclass(frozen=True)
class Owner:
    """Who owns a written file; None leaves it with the writer."""

    user: int = -1
    group: int = -1


def group_owner(name: str | None) -> Owner:
    """Root's file, readable by a group."""
    if name is None:
        return Owner()
    try:
        return Owner(group=grp.getgrnam(name).gr_gid)
    except KeyError:
        raise PkiError(f"there is no group {name!r} on this host; the role base creates it") from None


def write(path: Path, content: bytes, mode: int, owner: Owner | None = None) -> None:
    """Replace the file at once, durable at return: no reader ever sees half of it or a wider mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if owner is not None:
            os.chown(name, owner.user, owner.group)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_file(path: Path) -> bytes | None:
    """The whole file, or None if there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def read_certificate(path: Path) -> x509.Certificate | None:
    """The certificate in the file, or None if there is no such file."""
    pem = read_file(path)
    return None if pem is None else parse_certificate(path, pem)


def read_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    """The elliptic curve key in the file, or None if there is no such file."""
    pem = read_file(path)
    return None if pem is None else parse_key(path, pem)


def parse_certificate(path: Path, pem: bytes) -> x509.Certificate:
    """The certificate in what was read of the file; raises PkiError."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise PkiError(f"{path} holds no PEM certificate: {error}") from error


def parse_key(path: Path, pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The elliptic curve key in what was read of the file; raises PkiError."""
    try:
        key = load_pem_private_key(pem, password=None)
    except ValueError as error:
        raise PkiError(f"{path} holds no PEM key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{path} holds a key of another kind; an elliptic curve key is expected")
    return key


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as unencrypted PEM; the file's mode protects it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """The certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def new_ssh_key() -> bytes:
    """A new Ed25519 key in OpenSSH's format."""
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def ssh_public_key(path: Path) -> str:
    """The public half of an OpenSSH key file, as one line without a comment."""
    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise PkiError(f"{path} holds no OpenSSH key: {error}") from error
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
