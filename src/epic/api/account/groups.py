# SPDX-License-Identifier: Apache-2.0
"""Gateway templates (LBServiceGroup) of an account, and the platform's address pools (ServicePrefix)."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Response

from epic.api.account.existence import check_account
from epic.api.bodies import GroupBody, PrefixBody
from epic.api.context import Context, Ctx, admin_only
from epic.api.gateway.gateways import find_group
from epic.api.gateway.names import check_template
from epic.api.metadata import check_name, check_version
from epic.api.pages import Paging, listed
from epic.api.precondition import IfMatch, Precondition
from epic.api.replies import PREFIX, Duplicate, deleted, found, shown
from epic.api.unreadable import to_replace
from epic.envoy import templating
from epic.errors import Conflict, Invalid
from epic.ipam.networks import PlatformNetworks
from epic.ipam.prefixes import check_kept, check_prefix
from epic.kinds.registry import KINDS, LB_SERVICE_GROUP
from epic.kinds.validation import refuse_invalid
from epic.model.base import Metadata
from epic.model.resources import (
    Account,
    GWProxy,
    LBServiceGroup,
    LBServiceGroupSpec,
    Node,
    ServicePrefix,
    ServicePrefixSpec,
)
from epic.store.interface import Transaction

router = APIRouter()
_ADMIN = [Depends(admin_only)]


def _group_path(account: str, name: str) -> str:
    return f"{PREFIX}/accounts/{account}/groups/{name}"


def _group_body(group: LBServiceGroup) -> dict[str, Any]:
    path = _group_path(group.account, group.name)
    link = {
        "self": path,
        "account": f"{PREFIX}/accounts/{group.account}",
        "create-service": f"{path}/services",
        "create-proxy": f"{path}/proxies",
        "create-member": f"{path}/members",
    }
    return {"link": link, "group": shown(group)}


@router.get("/accounts/{account}/groups", tags=["templates"])
def list_groups(ctx: Ctx, account: str, page: Paging) -> Response:
    """All gateway templates of the account."""
    check_account(ctx.store, account)
    return listed(f"{PREFIX}/accounts/{account}/groups", ctx.store.list(LBServiceGroup, account), page)


@router.post("/accounts/{account}/groups", status_code=302, tags=["templates"], dependencies=_ADMIN)
def create_group(ctx: Ctx, account: str, body: GroupBody) -> Response:
    """Create a gateway template."""
    name = KINDS.check_name(LBServiceGroup, body.group.metadata.name, "group.metadata.name")
    return _write_group(ctx, account, name, body, None)


@router.get("/accounts/{account}/groups/{name}", tags=["templates"])
def read_group(ctx: Ctx, account: str, name: str) -> dict[str, Any]:
    """A gateway template."""
    return _group_body(find_group(ctx.store, account, name))


@router.put("/accounts/{account}/groups/{name}", status_code=302, tags=["templates"], dependencies=_ADMIN)
def replace_group(ctx: Ctx, account: str, name: str, body: GroupBody, if_match: IfMatch) -> Response:
    """Create a gateway template or change it."""
    KINDS.check_name(LBServiceGroup, name, "the template's name in the path")
    check_name(body.group.metadata, name, "group")
    return _write_group(ctx, account, name, body, if_match)


@router.delete("/accounts/{account}/groups/{name}", tags=["templates"], dependencies=_ADMIN)
def delete_group(ctx: Ctx, account: str, name: str, if_match: IfMatch) -> dict[str, str]:
    """Delete a gateway template that no gateway uses."""
    with ctx.store.transaction() as transaction:
        if_match.check(transaction.find_readable(LBServiceGroup, account, name))
        if transaction.exists(LBServiceGroup, account, name):
            users = [p.name for p in transaction.list(GWProxy, account) if p.spec.group == name]
            _refuse_if_used(f"gateway template {name!r}", "gateways", users)
            transaction.delete(LBServiceGroup, account, name)
    return deleted()


def _write_group(
    ctx: Context, account: str, name: str, body: GroupBody, replacing: Precondition | None
) -> Response:
    """Write a template; `replacing`: what of one that is there is to be replaced, None: nothing."""
    path = _group_path(account, name)
    spec = body.group.spec
    wanted = LBServiceGroup(metadata=Metadata(name=name, namespace=account), spec=spec)
    refuse_invalid(LB_SERVICE_GROUP, wanted, "group")
    with ctx.store.transaction() as transaction:
        transaction.get(Account, "", account)
        _check_group(transaction, spec)
        find = partial(to_replace, transaction) if replacing else transaction.find
        stored = find(LBServiceGroup, account, name)
        if replacing:
            replacing.check(stored)
        if stored is None:
            group = transaction.create(wanted)
        elif replacing:
            check_version(body.group.metadata, stored)
            group = transaction.update(stored.model_copy(update={"spec": spec}))
        else:
            raise Duplicate(f"gateway template {name!r} exists already", path)
    return found(path, _group_body(group), body.unknown)


def _check_group(transaction: Transaction, spec: LBServiceGroupSpec) -> None:
    check_template(spec.endpoint_template.dns_name)
    templating.check(spec.envoy_template.envoy_resources, "group.spec.envoy-template")
    if spec.envoy_version is not None:
        _check_version(transaction, spec.envoy_version)
    prefixes = [prefix.name for prefix in transaction.list(ServicePrefix)]
    if spec.service_prefix not in prefixes:
        raise Invalid(
            f"group.spec.service-prefix: there is no address pool {spec.service_prefix!r}; "
            f"there are: {', '.join(prefixes) or 'none'}"
        )


def _check_version(transaction: Transaction, version: str) -> None:
    """Refuse an Envoy that nodes are known not to have; what is not known is seen by the run."""
    for node in transaction.list(Node):
        known = node.status.envoy_versions
        if known and version not in known and not node.deleting:
            raise Invalid(
                f"group.spec.envoy-version: node {node.name!r} does not have Envoy {version}; "
                f"it has {', '.join(known)}"
            )


def _prefix_path(name: str) -> str:
    return f"{PREFIX}/service-prefixes/{name}"


def _prefix_body(prefix: ServicePrefix) -> dict[str, Any]:
    return {"link": {"self": _prefix_path(prefix.name)}, "service-prefix": shown(prefix)}


@router.get("/service-prefixes", tags=["address pools"], dependencies=_ADMIN)
def list_prefixes(ctx: Ctx, page: Paging) -> Response:
    """All address pools."""
    return listed(f"{PREFIX}/service-prefixes", ctx.store.list(ServicePrefix), page)


@router.post("/service-prefixes", status_code=302, tags=["address pools"], dependencies=_ADMIN)
def create_prefix(ctx: Ctx, body: PrefixBody) -> Response:
    """Create an address pool."""
    given = body.service_prefix.metadata.name
    name = KINDS.check_name(ServicePrefix, given, "service-prefix.metadata.name")
    return _write_prefix(ctx, name, body, None)


@router.get("/service-prefixes/{name}", tags=["address pools"], dependencies=_ADMIN)
def read_prefix(ctx: Ctx, name: str) -> dict[str, Any]:
    """An address pool."""
    return _prefix_body(ctx.store.get(ServicePrefix, "", name))


@router.put("/service-prefixes/{name}", status_code=302, tags=["address pools"], dependencies=_ADMIN)
def replace_prefix(ctx: Ctx, name: str, body: PrefixBody, if_match: IfMatch) -> Response:
    """Create an address pool or change it; addresses that gateways have must stay in it."""
    KINDS.check_name(ServicePrefix, name, "the pool's name in the path")
    check_name(body.service_prefix.metadata, name, "service-prefix")
    return _write_prefix(ctx, name, body, if_match)


@router.delete("/service-prefixes/{name}", tags=["address pools"], dependencies=_ADMIN)
def delete_prefix(ctx: Ctx, name: str, if_match: IfMatch) -> dict[str, str]:
    """Delete an address pool that no gateway template uses."""
    with ctx.store.transaction() as transaction:
        if_match.check(transaction.find_readable(ServicePrefix, "", name))
        if transaction.exists(ServicePrefix, "", name):
            groups = [g for g in transaction.list(LBServiceGroup) if g.spec.service_prefix == name]
            users = [f"{group.account}/{group.name}" for group in groups]
            _refuse_if_used(f"address pool {name!r}", "gateway templates", users)
            transaction.delete(ServicePrefix, "", name)
    return deleted()


def _write_prefix(ctx: Context, name: str, body: PrefixBody, replacing: Precondition | None) -> Response:
    """Write a pool; `replacing`: what of one that is there is to be replaced, None: nothing."""
    path = _prefix_path(name)
    spec = body.service_prefix.spec
    with ctx.store.transaction() as transaction:
        find = partial(to_replace, transaction) if replacing else transaction.find
        stored = find(ServicePrefix, "", name)
        if replacing:
            replacing.check(stored)
        if stored is None or stored.spec != spec:
            _check_prefix(ctx, transaction, name, spec)
        if stored is None:
            prefix = transaction.create(ServicePrefix(metadata=Metadata(name=name), spec=spec))
        elif replacing:
            check_version(body.service_prefix.metadata, stored)
            prefix = transaction.update(stored.model_copy(update={"spec": spec}))
        else:
            raise Duplicate(f"address pool {name!r} exists already", path)
    return found(path, _prefix_body(prefix), body.unknown)


def _check_prefix(ctx: Context, transaction: Transaction, name: str, spec: ServicePrefixSpec) -> None:
    platform = PlatformNetworks.of(ctx.inside_pool, ctx.pools, transaction.list(Node))
    check_prefix(name, spec, transaction.list(ServicePrefix), platform)
    check_kept(name, spec, transaction.list(GWProxy))


def _refuse_if_used(what: str, by: str, users: list[str]) -> None:
    if users:
        raise Conflict(f"{what} is used by {len(users)} {by} ({', '.join(users[:5])}); delete them first")
