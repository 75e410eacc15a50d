# SPDX-License-Identifier: Apache-2.0
"""The REST application as a whole."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute
from starlette.types import Message

from epic.api import unreadable
from epic.api.access.auth import Authenticator, Gate
from epic.api.access.body_rate import BodyRate
from epic.api.access.sessions import Sessions
from epic.api.account import accounts, groups
from epic.api.context import Asking, Context
from epic.api.gateway import members, proxies, routes
from epic.api.legacy import endpoints, services
from epic.api.node import nodes, runs, workload_nodes
from epic.api.replies import PREFIX, install_error_handlers
from epic.api.tunnel import tunnel_status

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is wrong; `error` says where and what is accepted"},
    401: {"description": "No or wrong credentials"},
    403: {"description": "Not this user's, or more than the account may have"},
    404: {"description": "There is no such object"},
    409: {"description": "It exists already (`Location` says where), or is in use, or was changed meanwhile"},
    429: {
        "description": "The account has too many connections or event streams open, or has sent too much, or "
        "too many passwords were wrong: repeat it after `Retry-After` seconds"
    },
    503: {
        "description": "A pool or the nodes have nothing left to give (`reason` NoRoom), or nothing can be "
        "written (NotWritable) or read (Unavailable) now: repeat it after `Retry-After` seconds"
    },
}

_ROUTED = (
    accounts,
    groups,
    proxies,
    members,
    routes,
    services,
    endpoints,
    tunnel_status,
    workload_nodes,
    nodes,
    runs,
)

_general = APIRouter(tags=["general"])


@_general.get("")
def start(principal: Asking) -> dict[str, Any]:
    """Where to go from here."""
    link = {"self": PREFIX, "openapi": f"{PREFIX}/openapi.json"}
    if principal.account:
        link["account"] = f"{PREFIX}/accounts/{principal.account}"
    else:
        collections = ("accounts", "service-prefixes", "nodes", "tunnels", "runs")
        link |= {name: f"{PREFIX}/{name}" for name in collections}
    return {"link": link}


@_general.get("/healthz")
def healthz() -> dict[str, str]:
    """Whether the API answers; needs no credentials."""
    return {"healthy": "yes"}


def create_app(context: Context) -> FastAPI:
    """The REST API, to be served over TLS."""
    app = FastAPI(
        title="EPIC",
        version="1",
        summary="Gateways as a service",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    install_error_handlers(app)
    store = context.store
    app.add_middleware(
        Gate,
        authenticator=Authenticator(store),
        sessions=Sessions(store, context.limits.streams),
        rate=BodyRate(store),
    )
    app.router.routes.extend(_routes())
    return app


@cache
def _routes() -> list[BaseRoute]:
    """What requests lead to. It is made once in a process: that takes a fifth of a second of a processor."""
    router = APIRouter(responses=_ERRORS)
    for routed in (*(module.router for module in _ROUTED), unreadable.router, _general):
        router.include_router(routed, prefix=PREFIX)
    return router.routes


async def make_ready(app: FastAPI) -> None:
    """Let the application answer a request before there are clients.

    FastAPI makes what it needs for all paths when the first one comes, and holds up the event loop meanwhile
    for a fifth of a second of a processor.
    """
    path = f"{PREFIX}/healthz"
    scope: dict[str, Any] = {"type": "http", "method": "GET", "scheme": "https", "http_version": "1.1"}
    scope |= {"path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": []}

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Message) -> None:
        """Nobody is answered."""

    await app(scope, receive, send)
