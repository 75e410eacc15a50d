# SPDX-License-Identifier: Apache-2.0
"""Pure: certificates from keys, names and a moment; nothing here reads a file or a clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3650)
REQUEST_BYTES = 8192
"""Of a certificate request: what is long takes long to read, and keeps other threads waiting."""
CLOCK_SKEW = timedelta(minutes=5)
"""What hosts verify is valid from a little before its making, for hosts whose clocks are behind."""

# What it means that a request is damaged or made to look so; it tells only when it is looked at.
_UNREADABLE = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion)
_SERVER = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
_CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])


@dataclass(frozen=True)
class Authority:
    """The certificate authority: its certificate and the key that signs."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey


@dataclass(frozen=True)
class Validity:
    """From when and for how long a new certificate is valid."""

    now: datetime
    life: timedelta
    skew: timedelta = CLOCK_SKEW

    @property
    def since(self) -> datetime:
        return self.now - self.skew

    @property
    def until(self) -> datetime:
        return self.now + self.life


class RequestError(ValueError):
    """A certificate signing request that the authority refuses."""


def make_authority(key: EllipticCurvePrivateKey, name: str, now: datetime) -> Authority:
    """A self-signed authority that may sign end certificates only."""
    subject = _subject(name)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(subject, subject, key.public_key(), Validity(now, AUTHORITY_LIFE))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def server_certificate(
    authority: Authority, key: EllipticCurvePublicKey, names: Sequence[str], validity: Validity
) -> x509.Certificate:
    """A server's certificate for host names and addresses; the first name is also its common name."""
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
    builder = _builder(_subject(names[0]), authority.certificate.subject, key, validity)
    return _sign(authority, builder.add_extension(alternatives, critical=False), key, _SERVER)


def agent_request(key: EllipticCurvePrivateKey, name: str) -> x509.CertificateSigningRequest:
    """A node's request for its agent's certificate."""
    return x509.CertificateSigningRequestBuilder().subject_name(_subject(name)).sign(key, hashes.SHA256())


def read_request(pem: bytes) -> x509.CertificateSigningRequest:
    """The certificate request in the text, of `REQUEST_BYTES` at most; raises RequestError."""
    if len(pem) > REQUEST_BYTES:
        raise RequestError(f"a certificate request of {len(pem)} bytes; at most {REQUEST_BYTES} are read")
    try:
        return x509.load_pem_x509_csr(pem)
    except _UNREADABLE as error:
        raise RequestError(f"there is no PEM certificate request in it: {error}") from error


def agent_certificate(
    authority: Authority, request: x509.CertificateSigningRequest, name: str, now: datetime, life: timedelta
) -> x509.Certificate:
    """The certificate of node `name`'s agent. Of the request only the key and the common name count.

    Only the control plane verifies it, by whose clock it is made. It is valid from `now` on and not before:
    so it can be told from those that were made before the node was removed.
    """
    key, asked = _requested(request, name)
    if asked != name:
        raise RequestError(f"the request is for {asked!r}; it must be for {name!r}")
    validity = Validity(now, life, skew=timedelta(0))
    return _sign(
        authority, _builder(_subject(name), authority.certificate.subject, key, validity), key, _CLIENT
    )


def workload_certificate(
    authority: Authority, request: x509.CertificateSigningRequest, uri: str, now: datetime, life: timedelta
) -> x509.Certificate:
    """The certificate of a workload node, whom `uri` names. Of the request only the key counts.

    Its subject has no common name: it is nobody's who is known by one.
    """
    key, _ = _requested(request, "the workload node")
    validity = Validity(now, life, skew=timedelta(0))
    builder = _builder(x509.Name([]), authority.certificate.subject, key, validity)
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    # Critical, as it has to be where there is no subject.
    return _sign(authority, builder.add_extension(name, critical=True), key, _CLIENT)


def uri_of(certificate: x509.Certificate) -> str:
    """The URI that a workload node's certificate names it by, or nothing."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return next(iter(found.get_values_for_type(x509.UniformResourceIdentifier)), "")


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority has signed the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def is_of(certificate: x509.Certificate, key: EllipticCurvePublicKey) -> bool:
    """Whether the certificate is of this key."""
    return _raw(certificate.public_key()) == _raw(key)


def is_due(certificate: x509.Certificate, now: datetime, left: float) -> bool:
    """Whether less than the part `left` of its life is left (0..1)."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < life * left


def common_name(subject: x509.Name) -> str:
    """The subject's common name, or nothing."""
    return "".join(str(part.value) for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME))


def alternative_names(certificate: x509.Certificate) -> set[str]:
    """The host names and addresses a server certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in found}


def _requested(request: x509.CertificateSigningRequest, who: str) -> tuple[EllipticCurvePublicKey, str]:
    """The key and the common name of a request."""
    try:
        key, signed, asked = request.public_key(), request.is_signature_valid, common_name(request.subject)
    except _UNREADABLE as error:
        raise RequestError(f"the request of {who} cannot be read: {error}") from error
    if not isinstance(key, EllipticCurvePublicKey) or not signed:
        raise RequestError(f"the request of {who} must hold an elliptic curve key and be signed by it")
    return key, asked


def _raw(key: object) -> bytes:
    if not isinstance(key, EllipticCurvePublicKey):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePublicKey, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.since)
        .not_valid_after(validity.until)
    )


def _sign(
    authority: Authority,
    builder: x509.CertificateBuilder,
    key: EllipticCurvePublicKey,
    purpose: x509.ExtendedKeyUsage,
) -> x509.Certificate:
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(purpose, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
