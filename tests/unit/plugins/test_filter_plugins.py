# SPDX-License-Identifier: Apache-2.0
"""The collection's filters."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.epic.gateway.plugins.filter.bird import bird_password, bird_symbol
from ansible_collections.epic.gateway.plugins.filter.clocks import clock_fault
from ansible_collections.epic.gateway.plugins.filter.networks import has_address, of_family


def test_networks_are_parted_by_family_each_once() -> None:
    networks = ["192.0.2.0/24", "2001:db8::/32", "192.0.2.7", "192.0.2.7/32"]
    assert of_family(networks, 4) == ["192.0.2.0/24", "192.0.2.7/32"]
    assert of_family(networks, 6) == ["2001:db8::/32"]


@pytest.mark.parametrize("text", ["192.0.2.1/24", "spine-1", "192.0.2.0/33", ""])
def test_what_is_no_network_is_named(text: str) -> None:
    with pytest.raises(AnsibleFilterError, match=f"'{text}' is no address and no network"):
        of_family([text], 4)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("192.0.2.9", True),
        ("192.0.3.9", False),
        ("::ffff:192.0.2.9", True),
        ("fe80::1%eth0", True),
        ("::1", False),
    ],
)
def test_an_address_is_in_a_network_or_not(address: str, found: bool) -> None:
    assert has_address(["192.0.2.0/24", "fe80::/10"], address) is found


def test_names_of_neighbours_are_symbols() -> None:
    assert bird_symbol("spine-1.dc:2", "upstream_") == "'upstream_spine-1.dc:2'"


@pytest.mark.parametrize("name", ["", "spine 1", "spine'1", "spine/1", "spïne", "a\nb"])
def test_others_are_refused(name: str) -> None:
    with pytest.raises(AnsibleFilterError, match="letters, digits and"):
        bird_symbol(name)


def test_long_names_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="may have 54 characters"):
        bird_symbol("x" * 55, "upstream_")


def test_a_password_stays_as_it_is() -> None:
    assert bird_password(r"p;a}s { #'/*\ ü") == r'''"p;a}s { #'/*\ ü"'''


@pytest.mark.parametrize("password", ['a"b', "a\nb", "a\0b", "", "x" * 81])
def test_a_password_that_bird_or_tcp_cannot_have_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(AnsibleFilterError) as refused:
        bird_password(password)
    assert not password or password not in str(refused.value)


def read(now: float, asked_at: float = 1000.0) -> dict[str, float]:
    """A host's clock, asked for when the asker's was at `asked_at`."""
    return {"now": now, "asked_at": asked_at}


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        (read(1001), ""),
        (read(1012), ""),
        (read(990), ""),
        (read(1013), "the clock is 11 s ahead of that of the Ansible controller; keep it within 10 s"),
        (read(989.5), "the clock is 11 s behind that of the Ansible controller; keep it within 10 s"),
        (read(4602), "the clock is 3600 s ahead of"),
    ],
)
def test_a_clock_that_is_off_for_certain_is_told(host: dict[str, float], fault: str) -> None:
    """It was read between 1000 and 1002: by less than these two seconds it may be off without a fault."""
    assert clock_fault(host, 1002, 10, {}, "epic1").startswith(fault)
    assert bool(clock_fault(host, 1002, 10, {}, "epic1")) is bool(fault)


@pytest.mark.parametrize(
    ("host", "control", "fault"),
    [
        (read(4600), read(4601), ""),
        (read(1001), read(4601), "the clock is 3598 s behind that of epic1"),
        (read(4601), read(1001), "the clock is 3598 s ahead of that of epic1"),
        # both may have been read at the begin or at the end of the two seconds
        (read(1014), read(1002), ""),
    ],
)
def test_clocks_are_compared_with_the_control_hosts(
    host: dict[str, float], control: dict[str, float], fault: str
) -> None:
    said = clock_fault(host, 1002, 10, control, "epic1")
    assert said.startswith(fault)
    assert bool(said) is bool(fault)


def test_the_control_hosts_own_clock_is_no_fault_and_a_tolerance_may_be_a_text() -> None:
    assert clock_fault(read(9000), 1030, "10", read(9000), "epic1") == ""
    assert "keep it within 5 s" in clock_fault(read(9000), 1002, "5", {}, "")
