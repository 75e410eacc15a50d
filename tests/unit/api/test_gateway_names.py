# SPDX-License-Identifier: Apache-2.0
"""A gateway's DNS name of its address."""

from __future__ import annotations

import pytest

from epic.api.gateway.names import dns_endpoints, with_names
from epic.model.resources import GWProxy, LBServiceGroup


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("203.0.113.7", "gw-203-0-113-7"),
        ("2001:db8::7:1", "gw-2001-db8--7-1"),
        ("2001:db8:0:0:1::", "gw-2001-db8-0-0-1--0"),
    ],
)
def test_an_address_of_either_family_makes_a_label_wherever_it_is_in_it(address: str, name: str) -> None:
    spec = {"service-prefix": "p", "endpoint-template": {"dnsName": "gw-{{ IPAddress }}.example.net"}}
    group = LBServiceGroup.model_validate({"metadata": {"name": "g", "namespace": "a"}, "spec": spec})
    proxy = GWProxy.model_validate(
        {"metadata": {"name": "U1", "namespace": "a"}, "spec": {"public-address": address}}
    )
    (endpoint,) = with_names(lambda names: dns_endpoints(group, proxy, names))
    assert endpoint.dns_name == f"{name}.example.net"
