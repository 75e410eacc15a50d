# SPDX-License-Identifier: Apache-2.0
"""A gateway that asks for other addresses than it has serves on, and says what it does not serve."""

from __future__ import annotations

from typing import Any

import pytest

from epic.ads.reports import configured
from epic.errors import Invalid
from epic.lifecycle.conditions import with_instances
from epic.model.resources import GWProxy

HAS = "203.0.113.7"
GOES_ON = f"it has {HAS} for good: ask for that or for none, or make the gateway anew"
DONE = {"node": "e1", "inside-address": "100.64.0.1", "unit": "current", "phase": "Serving"}


def gateway(*addresses: dict[str, str], **instance: Any) -> GWProxy:
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
    wanted = {"gatewayClassName": "k", "listeners": listeners, "addresses": addresses}
    return GWProxy.model_validate(
        {
            "metadata": {"name": "g", "namespace": "a"},
            "spec": {"public-address": HAS, "gateway": wanted},
            "status": {"instances": [{**DONE, **instance}]},
        }
    )


def conditions(proxy: GWProxy, problem: Invalid | None = None) -> dict[str, tuple[str, str, str]]:
    proxy = configured(with_instances(proxy, proxy.status.instances), "r1", problem)
    return {c.type: (c.status, c.reason, c.message) for c in proxy.status.conditions}


@pytest.mark.parametrize(
    "addresses",
    [[], [{"value": HAS}], [{"type": "IPAddress", "value": HAS}], [{"type": "IPAddress"}]],
    ids=["none", "its own", "its own with type", "any"],
)
def test_what_it_has_or_anything_is_no_matter(addresses: list[dict[str, str]]) -> None:
    found = conditions(gateway(*addresses))
    assert found["Accepted"] == ("True", "Accepted", "")
    assert found["Programmed"] == ("True", "Programmed", "")


@pytest.mark.parametrize(
    ("value", "others"),
    [("203.0.113.8", ()), ("2001:db8::1", ()), ("nonsense", ()), ("192.0.2.1", (HAS,))],
)
def test_another_address_is_not_usable(value: str, others: tuple[str, ...]) -> None:
    found = conditions(gateway(*({"value": other} for other in (*others, value))))
    assert found["Accepted"][:2] == ("True", "Accepted")
    text = f"spec.addresses: {value} cannot be given to this gateway; {GOES_ON}"
    assert found["Programmed"] == ("False", "AddressNotUsable", text)


def test_another_type_is_not_supported_and_both_are_said() -> None:
    found = conditions(gateway({"type": "Hostname", "value": "a.example"}, {"value": "192.0.2.1"}))
    text = f"spec.addresses: type 'Hostname' is not served, only 'IPAddress'; {GOES_ON}"
    assert found["Accepted"] == ("False", "UnsupportedAddress", text)
    assert found["Programmed"][:2] == ("False", "AddressNotUsable")
    found = conditions(gateway({"type": "Hostname", "value": "a.example"}))
    assert found["Programmed"][:2] == ("True", "Programmed")


def test_what_is_wrong_with_the_configuration_or_a_run_comes_first() -> None:
    wrong = gateway({"type": "Hostname"}, {"value": "192.0.2.1"}, **{"run-error": "RunFailed: run 1 failed"})
    found = conditions(wrong, Invalid("listener x"))
    assert found["Accepted"][:2] == ("False", "InvalidConfiguration")
    assert found["Programmed"] == ("False", "RunFailed", "run 1 failed")
