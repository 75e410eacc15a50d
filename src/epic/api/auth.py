# SPDX-License-Identifier: Apache-2.0
"""Who asks: HTTP basic authentication against argon2id hashes in the store, and what the user may reach."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import secrets
import time
from contextlib import nullcontext
from dataclasses import dataclass
from http import HTTPStatus

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from epic.api.body_limit import limited
from epic.api.connections import STATE, Connection
from epic.api.context import Principal
from epic.api.replies import PREFIX, epic_error_reply, error_reply, too_many
from epic.api.sessions import Sessions
from epic.errors import Unavailable
from epic.model.resources import User
from epic.store.interface import Store

log = logging.getLogger(__name__)

_CACHE_SECONDS = 30
_CACHE_SIZE = 1000
# Users of one name in several accounts; more are not tried, so that a guess stays cheap to refuse.
_CANDIDATES = 4
_VERIFICATIONS_AT_ONCE = 2
# Handlers have 40 threads: writes that wait for a disk which hangs must leave some to those who read.
_WRITES_AT_ONCE = 24
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="epicauth", charset="UTF-8"'}
_OPEN = {f"{PREFIX}/healthz"}
# Workload nodes put these every few seconds; they change nothing that lasts.
_MEASUREMENTS = "/tunnels/status"
_FOR_EVERY_USER = {PREFIX, f"{PREFIX}/openapi.json"}

_hasher = PasswordHasher()


def hash_password(password: str) -> str:
    """The argon2id hash of a password."""
    return _hasher.hash(password)


def verify_password(password_hash: str, password: str) -> bool:
    """Whether the password is the one that was hashed."""
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


@dataclass(frozen=True)
class _Verified:
    user: User
    until: float


class Authenticator:
    """Verifies credentials, and remembers those that were right while their user is unchanged."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key = secrets.token_bytes(32)
        self._verified: dict[bytes, _Verified] = {}
        self._verifying = asyncio.Semaphore(_VERIFICATIONS_AT_ONCE)
        self._nobody = hash_password(secrets.token_hex(16))

    async def authenticate(self, name: str, password: str, account: str | None) -> User | None:
        """The user of that name and password; `account` is the one asked for, whose user comes first."""
        key = self._cache_key(name, password, account)
        user = self._remembered(key)
        if user is None:
            async with self._verifying:
                # Another request with it may have been first: a site's nodes all come with one credential.
                user = self._remembered(key) or await asyncio.to_thread(self._verify, name, password, account)
            if user is not None:
                self._remember(key, user)
                # The user may have been changed while the hash was computed.
                user = self._remembered(key)
        return user

    def _verify(self, name: str, password: str, account: str | None) -> User | None:
        users = [user for user in self._store.list(User) if user.name == name]
        users.sort(key=lambda user: (user.account != account, user.account))
        if not users:
            # An unknown name costs as much time as a wrong password.
            verify_password(self._nobody, password)
        candidates = users[:_CANDIDATES]
        return next((u for u in candidates if verify_password(u.spec.password_hash, password)), None)

    def _remembered(self, key: bytes) -> User | None:
        entry = self._verified.get(key)
        if entry is None or entry.until < time.monotonic():
            return None
        current = self._store.find(User, entry.user.account, entry.user.name)
        return current if current == entry.user else None

    def _remember(self, key: bytes, user: User) -> None:
        if len(self._verified) >= _CACHE_SIZE:
            self._verified.clear()
        self._verified[key] = _Verified(user, time.monotonic() + _CACHE_SECONDS)

    def _cache_key(self, name: str, password: str, account: str | None) -> bytes:
        text = "\0".join((name, account or "", password))
        return hashlib.blake2b(text.encode(), key=self._key).digest()


class Gate:
    """ASGI wrapper that lets only known users in, and each only to what is theirs."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator, sessions: Sessions) -> None:
        self._app = app
        self._authenticator = authenticator
        self._sessions = sessions
        self._writing = asyncio.Semaphore(_WRITES_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or pass the request on with its principal."""
        if scope["type"] != "http" or scope["path"] in _OPEN:
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        account = account_of(scope["path"])
        credentials = _credentials(headers.get("authorization", ""))
        try:
            user = await self._authenticator.authenticate(*credentials, account) if credentials else None
        except Unavailable as error:
            return await epic_error_reply(error)(scope, receive, send)
        if user is None:
            message = (
                "wrong user name or password"
                if credentials
                else "HTTP basic authentication is needed: user name and password of the account"
            )
            return await error_reply(401, message, _CHALLENGE)(scope, receive, send)
        principal = Principal(user.name, user.account, user.spec.admin)
        if not (principal.admin or account == principal.account or scope["path"] in _FOR_EVERY_USER):
            message = (
                f"user {principal.name!r} belongs to account {principal.account!r} and may use only "
                f"{PREFIX}/accounts/{principal.account}"
            )
            return await error_reply(403, message)(scope, receive, send)
        state = scope.setdefault("state", {})
        connection: Connection | None = state.get(STATE)
        if connection is not None and not connection.authenticated(principal.account):
            return await too_many("connections", principal.account)(scope, receive, send)
        state["principal"] = principal
        send = _noted(scope, principal, send)
        async with self._writing if _changes_something(scope) else nullcontext():
            return await self._sessions.serve(self._app, _as_json(scope), limited(receive), send, user)


def _noted(scope: Scope, principal: Principal, send: Send) -> Send:
    """`send` that leaves a line in the log for each request that changes something, or is not to."""
    if not _changes_something(scope):
        return send

    async def noting(message: Message) -> None:
        # What is missing for now is logged when it begins to be; its clients repeat such requests.
        if message["type"] == "http.response.start" and message["status"] != HTTPStatus.SERVICE_UNAVAILABLE:
            who = f"{principal.account}/{principal.name}" if principal.account else principal.name
            log.info("%s %s by %s: %d", scope["method"], scope["path"], who, message["status"])
        await send(message)

    return noting


def _changes_something(scope: Scope) -> bool:
    return scope["method"] not in {"GET", "HEAD"} and not scope["path"].endswith(_MEASUREMENTS)


def account_of(path: str) -> str | None:
    """The account that a path is about; None for paths of the whole cluster."""
    parts = path.removeprefix(f"{PREFIX}/accounts/").split("/")
    return parts[0] if path.startswith(f"{PREFIX}/accounts/") and parts[0] else None


def _credentials(header: str) -> tuple[str, str] | None:
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:
        return None
    return (name, password) if colon else None


def _as_json(scope: Scope) -> Scope:
    # Bodies are JSON whatever the client calls them, as in the original.
    headers = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}
