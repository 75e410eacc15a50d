# SPDX-License-Identifier: Apache-2.0
"""Members of shared gateways: /accounts/{a}/groups/{g}/members and /accounts/{a}/members."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse

from epic.api.access.clusters import refuse_cluster, refuse_sources
from epic.api.access.parsed_aside import described, given
from epic.api.account.existence import check_account
from epic.api.bodies import MemberBody, MemberInput
from epic.api.context import Asking, Context, Ctx, Principal
from epic.api.gateway.gateways import GatewaySettings, find_group
from epic.api.gateway.names import DNSNames, with_names
from epic.api.gateway.sharing import change, join, leave, member_of
from epic.api.metadata import check_version, with_sources
from epic.api.pages import Paging, listed
from epic.api.precondition import IfMatch, Precondition
from epic.api.replies import PREFIX, Duplicate, deleted, found
from epic.api.unreadable import discard_unreadable
from epic.api.views import show_member
from epic.errors import Invalid
from epic.kinds.registry import GW_MEMBER, GW_PROXY
from epic.kinds.strategy import prepare_for_update
from epic.lifecycle.sharing import client_text, is_same_client
from epic.model.members import GWMember

router = APIRouter(tags=["members"])
_Given = Annotated[MemberBody, Depends(given(MemberBody))]
_BODY = described(MemberBody)


def _path(account: str, name: str = "") -> str:
    return f"{PREFIX}/{GW_MEMBER.path(account, name)}"


def _body(ctx: Context, member: GWMember) -> dict[str, Any]:
    gateway = f"{PREFIX}/{GW_PROXY.path(member.account, member.spec.sharing_key)}"
    link = {"self": _path(member.account, member.name), "proxy": gateway}
    return {"link": link, "member": show_member(ctx, member)}


@router.post("/accounts/{account}/groups/{group}/members", status_code=302, openapi_extra=_BODY)
def create(ctx: Ctx, asking: Asking, account: str, group: str, body: _Given) -> Response:
    """Join the gateway of that sharing key; the first member makes it, from the template."""
    ref = body.member.spec.client_ref
    refuse_cluster(asking, ref.cluster_id, f"member {ref.uid!r}")
    refuse_sources(asking, body.member.metadata.annotations, None)
    member = with_names(partial(_create, ctx, account, group, body.member))
    return found(_path(account, member.name), _body(ctx, member), body.unknown)


def _create(ctx: Context, account: str, group: str, wanted: MemberInput, names: DNSNames) -> GWMember:
    member = with_sources(wanted.metadata, member_of(account, wanted.spec))
    with ctx.current.transaction() as (transaction, world):
        template = find_group(transaction, account, group)
        if transaction.find(GWMember, account, member.name) is not None:
            raise Duplicate(f"member {member.name!r} exists already", _path(account, member.name))
        return join(transaction, world, member, template, GatewaySettings.of(ctx), names)


@router.get("/accounts/{account}/members")
def list_all(ctx: Ctx, account: str, page: Paging) -> Response:
    """All members of the account's gateways."""
    check_account(ctx.store, account)
    return listed(_path(account), ctx.store.list(GWMember, account), page, partial(show_member, ctx))


@router.get("/accounts/{account}/members/{name}")
def read(ctx: Ctx, account: str, name: str) -> Response:
    """A member."""
    return JSONResponse(_body(ctx, ctx.store.get(GWMember, account, name)))


@router.put("/accounts/{account}/members/{name}", status_code=302, openapi_extra=_BODY)
def replace(ctx: Ctx, asking: Asking, account: str, name: str, body: _Given, if_match: IfMatch) -> Response:
    """Change what a member asks for; with another sharing key it leaves its gateway and joins another."""
    uid = body.member.spec.client_ref.uid
    if uid != name:
        raise Invalid(
            f"member.spec.clientRef.uid: {uid!r} is not the member's name {name!r}, which cannot change"
        )
    member = with_names(partial(_replace, ctx, asking, account, body.member, if_match))
    return found(_path(account, name), _body(ctx, member), body.unknown)


def _replace(
    ctx: Context,
    asking: Principal,
    account: str,
    wanted: MemberInput,
    if_match: Precondition,
    names: DNSNames,
) -> GWMember:
    member = member_of(account, wanted.spec)
    with ctx.current.transaction() as (transaction, world):
        stored = transaction.get(GWMember, account, member.name)
        if_match.check(stored)
        refuse_cluster(asking, stored.spec.client_ref.cluster_id, f"member {stored.name!r}")
        refuse_sources(asking, wanted.metadata.annotations, stored)
        check_version(wanted.metadata, stored)
        _refuse_another_client(member, stored)
        if stored.spec.sharing_key != member.spec.sharing_key:
            group = find_group(transaction, account, stored.spec.group)
            leave(transaction, world, stored)
            return join(
                transaction,
                world,
                with_sources(wanted.metadata, member),
                group,
                GatewaySettings.of(ctx),
                names,
            )
        given_ = with_sources(wanted.metadata, stored.model_copy(update={"spec": member.spec}))
        return change(transaction, world, prepare_for_update(GW_MEMBER, given_, stored))


def _refuse_another_client(member: GWMember, stored: GWMember) -> None:
    theirs = stored.spec.client_ref
    if not is_same_client(member.spec.client_ref, theirs):
        raise Invalid(
            f"member.spec.clientRef: member {stored.name!r} is that of {client_text(theirs)}, and not of "
            f"{client_text(member.spec.client_ref)}; delete it, and join with the other"
        )


@router.delete("/accounts/{account}/members/{name}")
def delete(ctx: Ctx, asking: Asking, account: str, name: str, if_match: IfMatch) -> dict[str, str]:
    """Leave the gateway; it goes with its last member."""
    if not if_match.is_given and discard_unreadable(ctx, GWMember, account, name, asking):
        return deleted()
    with ctx.current.transaction() as (transaction, world):
        member = transaction.find(GWMember, account, name)
        if_match.check(member)
        if member is not None:
            refuse_cluster(asking, member.spec.client_ref.cluster_id, f"member {name!r}")
            leave(transaction, world, member)
    return deleted()
