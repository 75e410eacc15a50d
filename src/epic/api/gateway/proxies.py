# SPDX-License-Identifier: Apache-2.0
"""Gateways: /accounts/{a}/groups/{g}/proxies and /accounts/{a}/proxies."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse

from epic.api.access.clusters import refuse_another_cluster, refuse_cluster, refuse_sources
from epic.api.access.parsed_aside import described, given
from epic.api.account.existence import check_account
from epic.api.bodies import ProxyBody, ProxyInput
from epic.api.context import Asking, Context, Ctx, Principal
from epic.api.gateway.attached import refuse_if_of_balancer
from epic.api.gateway.gateways import (
    GatewaySettings,
    change_gateway,
    create_gateway,
    delete_gateway,
    find_group,
    refuse_if_deleting,
)
from epic.api.gateway.names import DNSNames, with_names
from epic.api.gateway.sharing import members_of, refuse_if_led
from epic.api.metadata import check_version, with_sources
from epic.api.pages import Paging, listed
from epic.api.precondition import IfMatch
from epic.api.replies import PREFIX, Duplicate, deleted, found
from epic.api.unreadable import discard_unreadable
from epic.api.views import show_gateway
from epic.errors import Invalid
from epic.model.base import ClientRef
from epic.model.resources import GWProxy

router = APIRouter(tags=["gateways"])
_Given = Annotated[ProxyBody, Depends(given(ProxyBody))]
_BODY = described(ProxyBody)


def _path(account: str, name: str) -> str:
    return f"{PREFIX}/accounts/{account}/proxies/{name}"


def _body(ctx: Context, proxy: GWProxy, principal: Principal) -> dict[str, Any]:
    group = f"{PREFIX}/accounts/{proxy.account}/groups/{proxy.spec.group}"
    link = {"self": _path(proxy.account, proxy.name), "group": group}
    return {"link": link, "proxy": show_gateway(ctx, proxy, principal)}


@router.post("/accounts/{account}/groups/{group}/proxies", status_code=302, openapi_extra=_BODY)
def create(ctx: Ctx, asking: Asking, account: str, group: str, body: _Given) -> Response:
    """Create a gateway from a template; its name is the client Gateway's UID."""
    ref = body.proxy.spec.client_ref
    refuse_cluster(asking, ref.cluster_id, f"gateway {ref.uid!r}")
    refuse_sources(asking, body.proxy.metadata.annotations, None)
    proxy = with_names(partial(_create, ctx, account, group, body.proxy))
    return found(_path(account, proxy.name), _body(ctx, proxy, asking), body.unknown)


def _create(ctx: Context, account: str, group: str, wanted: ProxyInput, names: DNSNames) -> GWProxy:
    name = wanted.spec.client_ref.uid
    with ctx.current.transaction() as (transaction, world):
        template = find_group(transaction, account, group)
        stored = transaction.find(GWProxy, account, name)
        if stored is not None:
            refuse_if_deleting(stored)
            raise Duplicate(f"gateway {name!r} exists already", _path(account, name))
        settings = GatewaySettings.of(ctx)
        proxy = create_gateway(transaction, world, template, wanted.spec, settings, names)
        if (named := with_sources(wanted.metadata, proxy)) is not proxy:
            proxy = transaction.update(named)
    return proxy


@router.get("/accounts/{account}/proxies")
def list_all(ctx: Ctx, asking: Asking, account: str, page: Paging) -> Response:
    """All gateways of the account."""
    check_account(ctx.store, account)
    proxies = ctx.store.list(GWProxy, account)
    path = f"{PREFIX}/accounts/{account}/proxies"
    return listed(path, proxies, page, lambda proxy: show_gateway(ctx, proxy, asking))


@router.get("/accounts/{account}/proxies/{name}")
def read(ctx: Ctx, asking: Asking, account: str, name: str) -> Response:
    """A gateway."""
    return JSONResponse(_body(ctx, ctx.store.get(GWProxy, account, name), asking))


@router.put("/accounts/{account}/proxies/{name}", status_code=302, openapi_extra=_BODY)
def replace(ctx: Ctx, asking: Asking, account: str, name: str, body: _Given, if_match: IfMatch) -> Response:
    """Change a gateway's listeners, ports and display name."""
    uid = body.proxy.spec.client_ref.uid
    if uid != name:
        raise Invalid(
            f"proxy.spec.clientRef.uid: {uid!r} is not the gateway's name {name!r}, which cannot change"
        )
    given_ref = ClientRef(**vars(body.proxy.spec.client_ref))
    refuse_cluster(asking, given_ref.cluster_id, f"gateway {name!r}")
    with ctx.store.transaction() as transaction:
        stored = transaction.get(GWProxy, account, name)
        if_match.check(stored)
        refuse_if_deleting(stored)
        refuse_if_of_balancer(stored)
        refuse_cluster(asking, stored.spec.client_ref.cluster_id, f"gateway {name!r}")
        refuse_another_cluster(given_ref, stored.spec.client_ref, f"gateway {name!r}")
        refuse_sources(asking, body.proxy.metadata.annotations, stored)
        check_version(body.proxy.metadata, stored)
        refuse_if_led(members_of(transaction, stored), stored)
        proxy = change_gateway(transaction, with_sources(body.proxy.metadata, stored), body.proxy.spec)
    return found(_path(account, name), _body(ctx, proxy, asking), body.unknown)


@router.delete("/accounts/{account}/proxies/{name}")
def delete(ctx: Ctx, asking: Asking, account: str, name: str, if_match: IfMatch) -> dict[str, str]:
    """Delete a gateway, for all who share it; it is shown with a deletionTimestamp until it is gone."""
    if not if_match.is_given and discard_unreadable(ctx, GWProxy, account, name, asking):
        return deleted()
    with ctx.store.transaction() as transaction:
        proxy = transaction.find(GWProxy, account, name)
        if_match.check(proxy)
        if proxy is not None:
            refuse_if_of_balancer(proxy)
            refuse_cluster(asking, proxy.spec.client_ref.cluster_id, f"gateway {name!r}")
            delete_gateway(transaction, proxy)
    return deleted()
