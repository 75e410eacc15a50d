# SPDX-License-Identifier: Apache-2.0
"""Accounts and their users."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Response

from epic.api.access.auth import hash_password
from epic.api.bodies import AccountBody, UserBody
from epic.api.context import Ctx, admin_only
from epic.api.metadata import check_name, check_version
from epic.api.pages import Paging, listed
from epic.api.precondition import IfMatch
from epic.api.replies import PREFIX, Duplicate, deleted, found, shown
from epic.api.unreadable import to_replace
from epic.errors import Conflict, Invalid
from epic.kinds.registry import KINDS
from epic.model.balancers import LoadBalancer, RemoteEndpoint
from epic.model.base import Metadata
from epic.model.members import GWMember
from epic.model.nodes import Quarantine
from epic.model.resources import (
    Account,
    GWEndpointSlice,
    GWProxy,
    GWRoute,
    LBServiceGroup,
    Tunnel,
    User,
    UserSpec,
)
from epic.model.values.naming import GatewayId
from epic.reconcile.releases import disown_addresses
from epic.reconcile.tunnels.tunnelling import replan
from epic.store.interface import Reader, Transaction

router = APIRouter(tags=["accounts"])
_ADMIN = [Depends(admin_only)]
_OWNED = (GWMember, GWRoute, GWEndpointSlice, RemoteEndpoint, LoadBalancer, LBServiceGroup, User)
"""What goes with its account."""


def _path(name: str) -> str:
    return f"{PREFIX}/accounts/{name}"


def _body(account: Account) -> dict[str, Any]:
    path = _path(account.name)
    link = {"self": path, "create-route": f"{path}/routes", "create-slice": f"{path}/slices"}
    return {"link": link, "account": shown(account)}


@router.get("/accounts", dependencies=_ADMIN)
def list_all(ctx: Ctx, page: Paging) -> Response:
    """All accounts."""
    return listed(f"{PREFIX}/accounts", ctx.store.list(Account), page)


@router.post("/accounts", status_code=302, dependencies=_ADMIN)
def create(ctx: Ctx, body: AccountBody) -> Response:
    """Create an account."""
    name = KINDS.check_name(Account, body.account.metadata.name, "account.metadata.name")
    with ctx.store.transaction() as transaction:
        if transaction.find(Account, "", name) is not None:
            raise Duplicate(f"account {name!r} exists already", _path(name))
        _refuse_inheritance(transaction, name)
        account = transaction.create(Account(metadata=Metadata(name=name), spec=body.account.spec))
    return found(_path(name), _body(account), body.unknown)


def _refuse_inheritance(reader: Reader, name: str) -> None:
    """Raise Conflict while something is left of an account of that name: it is not the new one's."""
    held = [q for q in reader.list(Quarantine) if GatewayId.parse(q.spec.gateway).account == name]
    tunnels = len(reader.list(Tunnel, name))
    if held or tunnels:
        until = max((q.spec.until for q in held), default=None)
        times = f", the last until {until:%H:%M:%S} UTC" if until else ""
        raise Conflict(
            f"an account {name!r} was deleted, and nodes may still use what it had ({len(held)} quarantined "
            f"instances{times}; {tunnels} tunnels); its name is free when they are gone"
        )


@router.get("/accounts/{account}")
def read(ctx: Ctx, account: str) -> dict[str, Any]:
    """An account."""
    return _body(ctx.store.get(Account, "", account))


@router.put("/accounts/{account}", status_code=302, dependencies=_ADMIN)
def replace(ctx: Ctx, account: str, body: AccountBody, if_match: IfMatch) -> Response:
    """Create an account or change its limits."""
    KINDS.check_name(Account, account, "the account's name in the path")
    check_name(body.account.metadata, account, "account")
    with ctx.current.transaction() as (transaction, world):
        is_new = not transaction.exists(Account, "", account)
        stored = to_replace(transaction, Account, "", account)
        if_match.check(stored)
        if stored is None:
            if is_new:
                _refuse_inheritance(transaction, account)
            written = transaction.create(Account(metadata=Metadata(name=account), spec=body.account.spec))
        else:
            check_version(body.account.metadata, stored)
            written = transaction.update(stored.model_copy(update={"spec": body.account.spec}))
            # Workload nodes that were left without tunnels may have some now.
            replan(transaction, world, account, ())
    return found(_path(account), _body(written), body.unknown)


@router.delete("/accounts/{account}", dependencies=_ADMIN)
def delete(ctx: Ctx, account: str, if_match: IfMatch) -> dict[str, str]:
    """Delete an account that has no gateways, with all that belongs to it."""
    with ctx.store.transaction() as transaction:
        if_match.check(transaction.find_readable(Account, "", account))
        if not transaction.exists(Account, "", account):
            return deleted()
        _delete_unreadable(transaction, account)
        proxies = transaction.list(GWProxy, account)
        if proxies:
            names = ", ".join(proxy.name for proxy in proxies[:5])
            raise Conflict(f"account {account!r} has {len(proxies)} gateways ({names}); delete them first")
        for kind in _OWNED:
            for obj in transaction.list(kind, account):
                transaction.delete(kind, account, obj.name)
        disown_addresses(transaction, account)
        transaction.delete(Account, "", account)
    return deleted()


def _delete_unreadable(transaction: Transaction, account: str) -> None:
    """Delete what cannot be read of what goes with its account; raises Conflict for gateways."""
    kinds = {kind.kind: kind for kind in _OWNED}
    for found_ in transaction.unreadable(account=account):
        if found_.key.kind == GWProxy.kind:
            raise Conflict(f"{found_.key} cannot be read; delete it first")
        if found_.key.kind in kinds:
            transaction.delete(kinds[found_.key.kind], account, found_.key.name)


def _user(user: User) -> dict[str, Any]:
    spec = {"admin": user.spec.admin, "cluster-ids": [*user.spec.cluster_ids]}
    return {"metadata": shown(user)["metadata"], "spec": spec}


def _user_path(account: str, name: str) -> str:
    return f"{_path(account)}/users/{name}"


def _user_body(user: User) -> dict[str, Any]:
    return {"link": {"self": _user_path(user.account, user.name)}, "user": _user(user)}


@router.get("/accounts/{account}/users", dependencies=_ADMIN)
def list_users(ctx: Ctx, account: str, page: Paging) -> Response:
    """All users of the account, without their hashes."""
    ctx.store.get(Account, "", account)
    return listed(f"{_path(account)}/users", ctx.store.list(User, account), page, _user)


@router.post("/accounts/{account}/users", status_code=302, dependencies=_ADMIN)
def put_user(ctx: Ctx, account: str, body: UserBody) -> Response:
    """Create a user of the account; one that exists gets the new password, or other clusters to speak for."""
    name, asked = body.user.name, body.user
    given: dict[str, Any] = {}
    if asked.password is not None:
        given["password_hash"] = hash_password(asked.password.get_secret_value())
    if asked.cluster_ids is not None:
        given["cluster_ids"] = asked.cluster_ids
    with ctx.store.transaction() as transaction:
        transaction.get(Account, "", account)
        stored = to_replace(transaction, User, account, name)
        if stored is None and asked.password is None:
            raise Invalid("user.password: a new user needs one")
        if stored is None:
            user = User(metadata=Metadata(name=name, namespace=account), spec=UserSpec(**given))
            user = transaction.create(user)
        else:
            spec = stored.spec.model_copy(update=given)
            user = transaction.update(stored.model_copy(update={"spec": spec}))
    return found(_user_path(account, name), _user_body(user))


@router.get("/accounts/{account}/users/{name}", dependencies=_ADMIN)
def read_user(ctx: Ctx, account: str, name: str) -> dict[str, Any]:
    """A user, without the hash."""
    return _user_body(ctx.store.get(User, account, name))


@router.delete("/accounts/{account}/users/{name}", dependencies=_ADMIN)
def delete_user(ctx: Ctx, account: str, name: str, if_match: IfMatch) -> dict[str, str]:
    """Delete a user."""
    with ctx.store.transaction() as transaction:
        if_match.check(transaction.find_readable(User, account, name))
        if transaction.exists(User, account, name):
            transaction.delete(User, account, name)
    return deleted()
