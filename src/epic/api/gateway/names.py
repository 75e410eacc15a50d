# SPDX-License-Identifier: Apache-2.0
"""A gateway's DNS name, from the template of its group."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import TypeVar

from jinja2 import StrictUndefined, TemplateError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from epic.errors import Invalid, Unavailable
from epic.model.resources import DNSEndpoint, GWProxy, LBServiceGroup

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_MOST_TRIES = 64
_DNS_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")


_Done = TypeVar("_Done")


class _NotRendered(Exception):
    """A name that a transaction needs is not known yet."""

    def __init__(self, template: str, variables: Mapping[str, str]) -> None:
        super().__init__(template)
        self.template = template
        self.variables = variables


class DNSNames:
    """DNS names that were rendered before a transaction: others write while a template takes its time."""

    def __init__(self) -> None:
        self._rendered: dict[tuple[str, tuple[tuple[str, str], ...]], str] = {}

    def of(self, template: str, variables: Mapping[str, str]) -> str:
        """The name that the template makes of these variables."""
        name = self._rendered.get(_key(template, variables))
        if name is None:
            raise _NotRendered(template, variables)
        return name

    def note(self, template: str, variables: Mapping[str, str]) -> None:
        """Render a name, for a later `of`; raises Invalid when the template fails."""
        self._rendered[_key(template, variables)] = _render(template, variables)


def with_names(write: Callable[[DNSNames], _Done]) -> _Done:
    """Do a write that needs names: what it lacks is rendered, and it is begun again.

    Raises Invalid when a template fails, Unavailable when others take each address before its name is ready.
    """
    names = DNSNames()
    for _ in range(_MOST_TRIES):
        try:
            return write(names)
        except _NotRendered as missing:
            names.note(missing.template, missing.variables)
    raise Unavailable("too many gateways are made at once; repeat it later")


def _key(template: str, variables: Mapping[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    try:
        used = find_undeclared_variables(_ENVIRONMENT.parse(template))
    except TemplateError:
        used = set()
    return template, tuple((name, variables[name]) for name in sorted(used & variables.keys()))


def dns_endpoints(group: LBServiceGroup, proxy: GWProxy, names: DNSNames) -> tuple[DNSEndpoint, ...]:
    """The DNS records of a gateway, one for each address, all of one name.

    Raises Invalid when the template's result is no DNS name.
    """
    template = group.spec.endpoint_template
    display_name, namespace = proxy.spec.display_name, proxy.spec.client_ref.namespace
    variables = {
        "LBName": proxy.name,
        "LBSGName": group.name,
        "ClusterServiceName": display_name,
        "ClusterServiceNS": namespace,
        "Account": proxy.account,
        "Distinct": _distinct(display_name, namespace, proxy.account),
        "IPAddress": _of_label(str(proxy.spec.public_address)),
    }
    name = names.of(template.dns_name, variables)
    if not _DNS_NAME.fullmatch(name):
        raise Invalid(
            f"the DNS name {name!r} made by template {template.dns_name!r} of group {group.name!r} is not "
            "valid; use only letters, digits and inner '-' in display-name and clientRef.namespace"
        )
    return tuple(
        DNSEndpoint(
            dns_name=name.lower(),
            targets=(str(address),),
            record_type="A" if address.version == 4 else "AAAA",
            record_ttl=template.record_ttl,
        )
        for address in proxy.addresses
    )


def _of_label(address: str) -> str:
    # No label ends with `-`.
    return re.sub(r"[.:/]", "-", f"{address}0" if address.endswith("::") else address)


def _distinct(*parts: str) -> str:
    """What keeps names apart that join such parts by `-`: nothing where no part has one itself."""
    if not any("-" in part for part in parts):
        return ""
    # Case makes no other name of a part; and nobody is to find parts that give the name of another.
    text = "\0".join(parts).lower().encode(errors="surrogatepass")
    return f"-{blake2b(text, digest_size=8).hexdigest()}"


def check_template(text: str) -> None:
    """Raise Invalid when the text is no template."""
    try:
        _ENVIRONMENT.parse(text)
    except TemplateError as error:
        raise Invalid(
            f"group.spec.endpoint-template.dnsName: {error}; write Jinja2 such as "
            "'{{ ClusterServiceName }}-{{ ClusterServiceNS }}-{{ Account }}{{ Distinct }}.example.net'"
        ) from None


def _render(template: str, variables: Mapping[str, str]) -> str:
    try:
        return _ENVIRONMENT.from_string(template).render(variables)
    except TemplateError as error:
        raise Invalid(
            f"the DNS name template {template!r} fails: {error}; it may use {', '.join(variables)}"
        ) from None
