# SPDX-License-Identifier: Apache-2.0
"""From what is wanted and what is there to what is done.

- Additions: attach, deliver, tunnels, endpoints; nothing when all is there; again when a link was remade.
- Removals: endpoints, tunnels, attachments; an endpoint in use stays, and its tunnel with it.
- A gateway is programmed when its interface is there and none of its additions failed.
"""

from __future__ import annotations

from dataclasses import replace

from agent_samples import (
    INSIDE,
    INSIDE6,
    INTERFACE,
    PUBLIC,
    PUBLIC6,
    VIA,
    WEB,
    A,
    B,
    C,
    instance,
    tunnel,
    wanted,
)

from epic.agent.gateway.desired import EMPTY
from epic.agent.gateway.plans.plan import (
    AttachInstance,
    DeleteEndpoints,
    DeleteTunnel,
    DeliverTo,
    DetachInstance,
    Observed,
    SetEndpoints,
    SetTunnel,
    additions,
    announceable,
    attachment,
    cut_off,
    leaving,
    removals,
    say_unforwarded,
    undelivered,
    unprogrammed,
)
from epic.bpf.dataplane import Endpoint

NOTHING = Observed({INTERFACE: 9}, {}, {}, {}, {})
DELIVERED = {PUBLIC: 9, INSIDE: 9}
ADDRESSES = (PUBLIC, INSIDE)
DUAL = replace(instance(), publics=(PUBLIC, PUBLIC6))
ATTACHED = {INTERFACE: attachment(instance(), 9)}
DONE = Observed({INTERFACE: 9}, ATTACHED, {7: tunnel()}, {(INSIDE, A): VIA}, DELIVERED)


def test_a_new_gateway_gets_everything_in_order() -> None:
    assert additions(wanted(A), NOTHING) == [
        AttachInstance(instance(), 9),
        DeliverTo(instance(), 9, ADDRESSES),
        SetTunnel(tunnel()),
        SetEndpoints(WEB, {(INSIDE, A): VIA}),
    ]


def test_nothing_is_done_when_all_is_there() -> None:
    assert additions(wanted(A), DONE) == []
    assert removals(wanted(A), DONE, frozenset()) == []


def test_an_interface_that_was_made_anew_is_attached_again() -> None:
    assert additions(wanted(A), replace(DONE, links={INTERFACE: 12})) == [
        AttachInstance(instance(), 12),
        DeliverTo(instance(), 12, ADDRESSES),
    ]


def test_an_interface_is_attached_again_when_the_instance_has_other_addresses() -> None:
    six = replace(instance(), inside6=C)
    desired = replace(wanted(A), instances={WEB: six})
    assert additions(desired, DONE) == [AttachInstance(six, 9)]
    assert additions(wanted(A), replace(DONE, attached={INTERFACE: None})) == [AttachInstance(instance(), 9)]


def test_an_interface_that_is_not_there_gets_neither_tunnels_nor_endpoints() -> None:
    observed = replace(NOTHING, links={})
    assert additions(wanted(A), observed) == []
    assert unprogrammed(wanted(A), observed, []) == {WEB}


def test_an_endpoint_that_is_mapped_otherwise_is_set_again() -> None:
    other = replace(DONE, endpoints={(INSIDE, A): Endpoint(7, real=B)})
    assert additions(wanted(A), other) == [SetEndpoints(WEB, {(INSIDE, A): VIA})]


def test_endpoints_of_either_family_wait_for_the_envoy() -> None:
    desired = wanted(A)
    observed = replace(DONE, endpoints={(INSIDE, A): VIA, (INSIDE6, C): VIA})
    assert leaving(desired, observed) == {WEB: {(INSIDE6, C)}}
    assert removals(desired, observed, {(INSIDE6, C)}) == [DeleteEndpoints(frozenset({(INSIDE6, C)}))]


def test_a_tunnel_of_an_earlier_agent_is_set_again_for_its_keys_are_unknown() -> None:
    assert additions(wanted(A), replace(DONE, tunnels={7: None})) == [SetTunnel(tunnel())]


def test_everything_of_a_gateway_that_is_gone_goes() -> None:
    assert removals(EMPTY, DONE, frozenset()) == [
        DeleteEndpoints(frozenset({(INSIDE, A)})),
        DeleteTunnel(7),
        DetachInstance(INTERFACE),
    ]


def test_an_endpoint_goes_when_the_envoy_has_let_go_of_it() -> None:
    observed = replace(DONE, endpoints={(INSIDE, A): VIA, (INSIDE, B): VIA})
    assert removals(wanted(A), observed, {(INSIDE, B)}) == [DeleteEndpoints(frozenset({(INSIDE, B)}))]


def test_an_endpoint_stays_while_the_envoy_may_use_it() -> None:
    observed = replace(DONE, endpoints={(INSIDE, A): VIA, (INSIDE, B): VIA})
    assert removals(wanted(A), observed, frozenset()) == []
    assert leaving(wanted(A), observed) == {WEB: {(INSIDE, B)}}


def test_a_tunnel_stays_while_an_endpoint_needs_it() -> None:
    desired = replace(wanted(A), tunnels={8: tunnel(8)}, endpoints={(INSIDE, A): Endpoint(8)})
    observed = replace(
        DONE, endpoints={(INSIDE, A): Endpoint(8), (INSIDE, B): VIA}, tunnels={7: tunnel(), 8: tunnel(8)}
    )
    assert removals(desired, observed, frozenset()) == []
    gone = frozenset({(INSIDE, B)})
    assert removals(desired, observed, gone) == [DeleteEndpoints(gone), DeleteTunnel(7)]


def test_a_gateway_with_a_failed_addition_is_not_programmed() -> None:
    assert unprogrammed(wanted(A), DONE, []) == set()
    assert unprogrammed(wanted(A), DONE, [SetEndpoints(WEB, {(INSIDE, A): VIA})]) == {WEB}


def test_a_lost_route_to_an_instance_is_made_again() -> None:
    for lost in ({PUBLIC: 9}, {PUBLIC: 8, INSIDE: 9}):
        assert additions(wanted(A), replace(DONE, delivered=lost)) == [DeliverTo(instance(), 9, ADDRESSES)]


def test_a_node_that_forwards_no_ipv6_delivers_and_announces_ipv4_alone() -> None:
    desired = replace(wanted(A), instances={WEB: DUAL})
    dual = replace(DONE, attached={INTERFACE: attachment(DUAL, 9)})
    assert additions(desired, dual) == [DeliverTo(DUAL, 9, (PUBLIC6,))]
    without = replace(dual, forwards6=False)
    assert additions(desired, without) == []
    assert additions(desired, replace(without, delivered={})) == [DeliverTo(DUAL, 9, ADDRESSES)]
    assert unprogrammed(desired, without, []) == set()
    assert announceable(DUAL, True) == (PUBLIC, PUBLIC6)
    assert announceable(DUAL, False) == (PUBLIC,)
    assert announceable(replace(DUAL, publics=(PUBLIC6,)), False) == ()


def test_a_node_that_forwards_no_ipv6_says_so_when_a_gateway_needs_it() -> None:
    gateways = {WEB: DUAL, "shop.api": instance()}
    assert say_unforwarded(gateways, False).startswith("the IPv6 addresses of 1 gateways are not announced: ")
    assert say_unforwarded(gateways, True) == ""
    assert say_unforwarded({WEB: instance()}, False) == ""


def test_a_gateway_is_cut_off_when_packets_do_not_reach_its_envoy_or_pass_the_programs_by() -> None:
    assert cut_off(wanted(A), DONE, []) == set()
    assert cut_off(wanted(A), replace(DONE, links={}), []) == {WEB}
    assert cut_off(wanted(A), DONE, [AttachInstance(instance(), 9)]) == {WEB}
    assert cut_off(wanted(A), DONE, [DeliverTo(instance(), 9, ADDRESSES)]) == {WEB}
    # One tunnel's trouble is not the gateway's.
    assert cut_off(wanted(A), DONE, [SetTunnel(tunnel())]) == set()


def test_trouble_with_an_ipv6_address_does_not_cost_the_ipv4_address() -> None:
    desired = replace(wanted(A), instances={WEB: DUAL})
    new = replace(DONE, attached={INTERFACE: attachment(DUAL, 9)}, delivered={})
    four, six = additions(desired, new)
    assert (four, six) == (DeliverTo(DUAL, 9, ADDRESSES), DeliverTo(DUAL, 9, (PUBLIC6,)))
    assert undelivered([four, six]) == {PUBLIC6}
    assert (unprogrammed(desired, new, [six]), cut_off(desired, new, [six])) == (set(), set())
    assert (unprogrammed(desired, new, [four]), cut_off(desired, new, [four])) == ({WEB}, {WEB})


def test_a_gateway_of_ipv6_alone_is_cut_off_by_it() -> None:
    alone = replace(instance(), publics=(PUBLIC6,))
    desired = replace(wanted(A), instances={WEB: alone})
    new = replace(DONE, attached={INTERFACE: attachment(alone, 9)}, delivered={INSIDE: 9})
    (six,) = additions(desired, new)
    assert (undelivered([six]), cut_off(desired, new, [six])) == (set(), {WEB})


def test_logs_show_no_keys() -> None:
    assert "\\x" not in f"{SetTunnel(tunnel())} {SetTunnel(tunnel())!r} {wanted(A)!r}"
