# SPDX-License-Identifier: Apache-2.0
"""Joining and leaving a shared gateway inside a transaction.

It is made with its first member and ends with its last. The first has the say about listeners, and when it
has left the next. A gateway that a client made for itself, and that others joined, stays until it is deleted,
or ends with its last member if its own client became one.
"""

from __future__ import annotations

from collections.abc import Sequence

from epic.api.account.account_limits import within_bytes_limit
from epic.api.bodies import MemberSpecInput, ProxySpecInput
from epic.api.gateway.attached import refuse_if_of_balancer
from epic.api.gateway.gateways import (
    GatewaySettings,
    change_gateway,
    create_gateway,
    delete_gateway,
    refuse_if_deleting,
)
from epic.api.gateway.names import DNSNames
from epic.api.gateway.ports import ports_and_gateway
from epic.errors import Conflict, Forbidden, Invalid, QuotaExceeded
from epic.kinds.registry import GW_MEMBER
from epic.kinds.strategy import OWN_PREFIX
from epic.kinds.validation import refuse_invalid
from epic.lifecycle.sharing import MOST_MEMBERS, client_text, in_order, is_same_client, leads
from epic.model.base import ClientRef, Metadata, now
from epic.model.members import GWMember, GWMemberSpec
from epic.model.resources import GWProxy, LBServiceGroup
from epic.reconcile.world import World
from epic.store.interface import Reader, Transaction

_ENDS_WITH_MEMBERS = f"{OWN_PREFIX}ends-with-members"


def member_of(account: str, spec: MemberSpecInput) -> GWMember:
    """The member that a client asks for; raises Invalid."""
    ports, gateway = ports_and_gateway(spec, "member")
    member = GWMember(
        metadata=Metadata(name=spec.client_ref.uid, namespace=account, creation_timestamp=now()),
        spec=GWMemberSpec(
            client_ref=ClientRef(**vars(spec.client_ref)),
            sharing_key=spec.sharing_key,
            display_name=spec.display_name,
            public_ports=ports,
            gateway=gateway,
        ),
    )
    refuse_invalid(GW_MEMBER, member, "member")
    return member


def join(
    transaction: Transaction,
    world: World,
    member: GWMember,
    group: LBServiceGroup,
    settings: GatewaySettings,
    names: DNSNames,
) -> GWMember:
    """Make the member, and its gateway if it is the first.

    Raises Forbidden where the template lets nobody else in, and Conflict where it is a load balancer's.
    """
    filled_in = {"group": group.name, "joined": transaction.next_number("member")}
    member = member.model_copy(update={"spec": member.spec.model_copy(update=filled_in)})
    proxy = transaction.find(GWProxy, member.account, member.spec.sharing_key)
    if proxy is None:
        proxy = create_gateway(transaction, world, group, _wish(member), settings, names)
    else:
        refuse_if_deleting(proxy)
        refuse_if_of_balancer(proxy)
        _check_may_join(transaction, member, proxy, group)
    if leads(member, proxy) and _ENDS_WITH_MEMBERS not in proxy.metadata.labels:
        world.note(transaction.update(_ending_with_members(proxy)))
    with within_bytes_limit(transaction, world, member.account):
        return world.note(transaction.create(member))


def change(transaction: Transaction, world: World, member: GWMember) -> GWMember:
    """Write a member that asks for something else now; the gateway follows the one that leads it."""
    with within_bytes_limit(transaction, world, member.account):
        changed = world.note(transaction.update(member))
    proxy = transaction.find_readable(GWProxy, member.account, member.spec.sharing_key)
    if proxy is None or proxy.deleting:
        return changed
    if leads(changed, proxy):
        world.note(change_gateway(transaction, proxy, _wish(changed)))
    else:
        _settle(transaction, world, proxy)
    return changed


def leave(transaction: Transaction, world: World, member: GWMember) -> None:
    """Take the member away, and its gateway if it was the last."""
    transaction.delete(GWMember, member.account, member.name)
    world.drop(member)
    proxy = transaction.find_readable(GWProxy, member.account, member.spec.sharing_key)
    if proxy is not None:
        _settle(transaction, world, proxy, has_first_left=leads(member, proxy))


def settle_account(transaction: Transaction, world: World, account: str) -> None:
    """Do for all gateways what follows when a member is gone of which nobody knows whose it was."""
    for proxy in transaction.list(GWProxy, account):
        _settle(transaction, world, proxy)


def _settle(transaction: Transaction, world: World, proxy: GWProxy, *, has_first_left: bool = False) -> None:
    """Let the next have the say where nobody has it, and the gateway go where nobody is left.

    Somebody who cannot be read may be left, and may have the say unless it is known who had it.
    """
    if proxy.deleting or _ENDS_WITH_MEMBERS not in proxy.metadata.labels:
        return
    members = members_of(transaction, proxy)
    if any(leads(member, proxy) for member in members):
        return
    may_be_more = _may_have_another(transaction, proxy)
    if members and (has_first_left or not may_be_more):
        world.note(_follow(transaction, proxy, members[0]))
    elif not members and not may_be_more:
        delete_gateway(transaction, proxy)


def members_of(reader: Reader, proxy: GWProxy) -> list[GWMember]:
    """The members of a gateway, who came first before the others."""
    return in_order(reader.by(GWMember, "gateway", (proxy.account, proxy.name)))


def refuse_if_led(members: Sequence[GWMember], proxy: GWProxy) -> None:
    """Raise Conflict if it is a member that has the say about the gateway's listeners."""
    leader = next((member for member in members if leads(member, proxy)), None)
    if leader is not None:
        raise Conflict(
            f"gateway {proxy.name!r} is shared, and its listeners are those of member {leader.name!r} "
            f"({client_text(leader.spec.client_ref)}); change them there"
        )


def _may_have_another(transaction: Transaction, proxy: GWProxy) -> bool:
    """Whether an object that cannot be read may be one of the gateway's members."""
    quoted = f'"{proxy.name}"'.encode()
    return any(quoted in found.value for found in transaction.unreadable(GWMember, proxy.account))


def _check_may_join(
    transaction: Transaction, member: GWMember, proxy: GWProxy, group: LBServiceGroup
) -> None:
    if proxy.spec.group != group.name:
        raise Invalid(
            f"member.spec.sharing-key: gateway {proxy.name!r} was made from template {proxy.spec.group!r}, "
            f"not from {group.name!r}; join it with that, or choose another key"
        )
    first = proxy.spec.client_ref
    if not group.spec.can_be_shared and not is_same_client(member.spec.client_ref, first):
        raise Forbidden(
            f"template {group.name!r} does not let gateways be shared, and {proxy.name!r} is that of "
            f"{client_text(first)}; choose another sharing key, or ask the platform's administrators for "
            "can-be-shared"
        )
    count = len(members_of(transaction, proxy))
    if count >= MOST_MEMBERS:
        raise QuotaExceeded(f"gateway {proxy.name!r} has {count} members and may have {MOST_MEMBERS}")


def _ending_with_members(proxy: GWProxy) -> GWProxy:
    labels = {**proxy.metadata.labels, _ENDS_WITH_MEMBERS: "true"}
    return proxy.model_copy(update={"metadata": proxy.metadata.model_copy(update={"labels": labels})})


def _follow(transaction: Transaction, proxy: GWProxy, heir: GWMember) -> GWProxy:
    ref = heir.spec.client_ref.model_copy(update={"uid": proxy.name})
    spec = proxy.spec.model_copy(update={"client_ref": ref})
    return change_gateway(transaction, proxy.model_copy(update={"spec": spec}), _wish(heir))


def _wish(member: GWMember) -> ProxySpecInput:
    """The gateway as the member asks for it."""
    spec = member.spec
    return ProxySpecInput.model_validate(
        {
            "clientRef": {**spec.client_ref.model_dump(by_alias=True), "uid": spec.sharing_key},
            "display-name": spec.display_name or spec.client_ref.name,
            "public-ports": spec.public_ports,
            "gateway": spec.gateway,
        }
    )
