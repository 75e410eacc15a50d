# SPDX-License-Identifier: Apache-2.0
"""A gateway's DNS name, from the template of its group."""

from __future__ import annotations

import re

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from epic.errors import Invalid
from epic.model.resources import DNSEndpoint, GWProxy, LBServiceGroup

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")


def dns_endpoint(group: LBServiceGroup, proxy: GWProxy) -> DNSEndpoint:
    """The DNS record of a gateway; raises Invalid when the template's result is no DNS name."""
    template = group.spec.endpoint_template
    address = str(proxy.spec.public_address)
    variables = {
        "LBName": proxy.name,
        "LBSGName": group.name,
        "ClusterServiceName": proxy.spec.display_name,
        "ClusterServiceNS": proxy.spec.client_ref.namespace,
        "Account": proxy.account,
        "IPAddress": re.sub(r"[.:/]", "-", address),
    }
    name = _render(template.dns_name, variables)
    if not _DNS_NAME.fullmatch(name):
        raise Invalid(
            f"the DNS name {name!r} made by template {template.dns_name!r} of group {group.name!r} is not "
            "valid; use only letters, digits and inner '-' in display-name and clientRef.namespace"
        )
    return DNSEndpoint(
        dns_name=name.lower(),
        targets=(address,),
        record_type=template.record_type,
        record_ttl=template.record_ttl,
    )


def check_template(text: str) -> None:
    """Raise Invalid when the text is no template."""
    try:
        _ENVIRONMENT.parse(text)
    except TemplateError as error:
        raise Invalid(
            f"group.spec.endpoint-template.dnsName: {error}; write Jinja2 such as "
            "'{{ ClusterServiceName }}-{{ ClusterServiceNS }}-{{ Account }}.example.net'"
        ) from None


def _render(template: str, variables: dict[str, str]) -> str:
    try:
        return _ENVIRONMENT.from_string(template).render(variables)
    except TemplateError as error:
        raise Invalid(
            f"the DNS name template {template!r} fails: {error}; it may use {', '.join(variables)}"
        ) from None
