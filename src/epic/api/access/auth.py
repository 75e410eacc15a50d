# SPDX-License-Identifier: Apache-2.0
"""Who asks: HTTP basic authentication against argon2id hashes in the store, and what the user may reach."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from epic.api.access.attempts import Attempts, SourceTurns, TooManyAttempts
from epic.api.access.body_limit import body_length, limited, read_whole
from epic.api.access.body_rate import BodyRate, TooManyBytes
from epic.api.access.connections import STATE, Connection, origin_of
from epic.api.access.sessions import Sessions
from epic.api.access.slots import READS, WRITES, OfAccounts, Slots, TooManyWaiting, UntilAnswered
from epic.api.access.verified import Verified
from epic.api.context import Principal
from epic.api.replies import PREFIX, epic_error_reply, error_reply, too_many
from epic.errors import Unavailable
from epic.log_rate import LogRate
from epic.model.resources import User
from epic.store.interface import Store
from epic.workloads.identity import fingerprint
from epic.workqueue.threads import ThreadPool

log = logging.getLogger(__name__)

# Users of one name in several accounts; more are not tried, so that a guess stays cheap to refuse.
_CANDIDATES = 4
_VERIFICATIONS_AT_ONCE = 2
_NAME_SHOWN = 64
_PATH_SHOWN = 300
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="epicauth", charset="UTF-8"'}
_OPEN = {f"{PREFIX}/healthz"}
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
class Credentials:
    """What a request says of who asks, and the source that it comes from."""

    name: str
    password: str
    source: str


@dataclass(frozen=True)
class _Wanted:
    """What is to be found out of a digest: whose it is, or whether it is a known user's namesake's too."""

    digest: bytes
    namesake: User | None
    """The user of that name in the account that is asked for."""
    only_namesake: bool

    @property
    def account(self) -> str:
        return self.namesake.account if self.namesake is not None else ""

    @property
    def key(self) -> tuple[bytes, str, bool]:
        return self.digest, self.account, self.only_namesake


@dataclass(frozen=True)
class _Outcome:
    user: User | None
    refused: tuple[str, ...]
    """Hashes that were computed, and are not of the password."""


class Authenticator:
    """Verifies credentials, and remembers those that were right while their user is unchanged."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key = secrets.token_bytes(32)
        self._verified = Verified(store)
        self._attempts = Attempts()
        self._turns = SourceTurns(_VERIFICATIONS_AT_ONCE)
        self._threads = ThreadPool("passwords", _VERIFICATIONS_AT_ONCE)
        self._running: dict[tuple[bytes, str, bool], asyncio.Task[None]] = {}
        self._nobody = hash_password(secrets.token_hex(16))
        self._log = LogRate(log)

    async def authenticate(self, credentials: Credentials, account: str | None) -> User | None:
        """The user whose credentials they are; `account` is the one asked for, whose user comes first.

        Raises TooManyAttempts.
        """
        digest = self._digest(credentials)
        known = self._verified.users(digest)
        if account in known:
            return known[account]
        # Only a user of that name in the account that is asked for can be meant instead of one that is known.
        namesake = self._store.find_readable(User, account, credentials.name) if account else None
        if known and (namesake is None or self._verified.is_refused(namesake.spec.password_hash, digest)):
            return _first(known)
        wanted = _Wanted(digest, namesake, only_namesake=bool(known))
        try:
            await self._search(credentials, wanted)
        except TooManyAttempts:
            if not known:
                raise
        # Users may have been changed while the hash was computed.
        known = self._verified.users(digest)
        return known.get(account or "") or _first(known)

    async def _search(self, credentials: Credentials, wanted: _Wanted) -> None:
        # A site's nodes all come with one credential: it is verified for all of them at once.
        task = self._running.get(wanted.key)
        if task is None:
            try:
                self._attempts.begin(credentials.source, credentials.name)
            except TooManyAttempts:
                name = credentials.name[:_NAME_SHOWN]
                self._log.warning(
                    "too many wrong passwords: refused %s for user %r", credentials.source, name
                )
                raise
            task = asyncio.create_task(self._verify(credentials, wanted), name="verification")
            self._running[wanted.key] = task
            task.add_done_callback(lambda _: self._running.pop(wanted.key))
        # Who goes away meanwhile leaves the others their answer.
        await asyncio.shield(task)

    async def _verify(self, credentials: Credentials, wanted: _Wanted) -> None:
        outcome = _Outcome(None, ())
        try:
            async with self._turns.turn(credentials.source):
                outcome = await self._threads.run(self._try, credentials, wanted)
        finally:
            if not outcome.refused:
                self._attempts.forgive(credentials.source, credentials.name)
        for password_hash in outcome.refused:
            self._verified.refuse(password_hash, wanted.digest)
        if outcome.user is not None:
            self._verified.remember(wanted.digest, outcome.user)

    def _try(self, credentials: Credentials, wanted: _Wanted) -> _Outcome:
        refused: list[str] = []
        for user in self._candidates(credentials.name, wanted):
            password_hash = user.spec.password_hash if user is not None else self._nobody
            if self._verified.is_refused(password_hash, wanted.digest):
                continue
            if verify_password(password_hash, credentials.password) and user is not None:
                return _Outcome(user, tuple(refused))
            refused.append(password_hash)
        return _Outcome(None, tuple(refused))

    def _candidates(self, name: str, wanted: _Wanted) -> Sequence[User | None]:
        if wanted.only_namesake:
            return [wanted.namesake]
        first = wanted.account
        users = [user for user in self._store.list(User) if user.name == name]
        users.sort(key=lambda user: (user.account != first, user.account))
        # An unknown name costs as much time as a wrong password.
        return users[:_CANDIDATES] or [None]

    def _digest(self, credentials: Credentials) -> bytes:
        text = f"{len(credentials.name)} {credentials.name}{credentials.password}"
        return hashlib.blake2b(text.encode(), key=self._key).digest()


def _first(users: dict[str, User]) -> User | None:
    return users[min(users)] if users else None


class Gate:
    """ASGI wrapper that lets only known users in, and each only to what is theirs."""

    def __init__(
        self, app: ASGIApp, authenticator: Authenticator, sessions: Sessions, rate: BodyRate
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._sessions = sessions
        self._bodies = OfAccounts()
        self._writes = Slots(WRITES)
        self._reads = Slots(READS)
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or pass the request on with its principal."""
        if scope["type"] != "http" or scope["path"] in _OPEN:
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        account = account_of(scope["path"])
        credentials = _credentials(headers.get("authorization", ""), _source(scope))
        try:
            user = await self._authenticator.authenticate(credentials, account) if credentials else None
        except (TooManyAttempts, Unavailable) as error:
            return await epic_error_reply(error)(scope, receive, send)
        if user is None:
            message = (
                "wrong user name or password"
                if credentials
                else "HTTP basic authentication is needed: user name and password of the account"
            )
            return await error_reply(401, message, _CHALLENGE)(scope, receive, send)
        clusters = frozenset(user.spec.cluster_ids)
        principal = Principal(user.name, user.account, user.spec.admin, fingerprint(user), clusters)
        refusal = await self._refusal(scope, principal, body_length(headers))
        if refusal is not None:
            return await refusal(scope, receive, send)
        scope.setdefault("state", {})["principal"] = principal
        send = _noted(scope, principal, send)
        if not principal.admin:
            send = self._rate.counting(principal.account, send)
        try:
            return await self._serve(_as_json(scope), limited(receive), send, user)
        except TooManyWaiting:
            refusal = too_many("requests", principal.account)
        except TooManyBytes as error:
            refusal = epic_error_reply(error)
        return await refusal(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, user: User) -> None:
        """Let the application answer when it is the account's turn. Raises TooManyBytes, TooManyWaiting."""
        account = "" if user.spec.admin else user.account
        async with AsyncExitStack() as stack:
            if _changes_something(scope):
                # Whoever sends slowly takes no place from others.
                await stack.enter_async_context(self._bodies.take(account))
                try:
                    whole = await read_whole(receive)
                except HTTPException as error:
                    return await error_reply(error.status_code, error.detail)(scope, receive, send)
                if whole is None:
                    return None
                receive = whole
                slot = self._writes.take(account)
            else:
                slot = self._reads.take(account)
            place = await stack.enter_async_context(UntilAnswered(slot))
            if account and not _changes_something(scope):
                # What came with many others was let in before their replies, which may be large, counted.
                self._rate.check(account)
            return await self._sessions.serve(self._app, scope, receive, place.returning(send), user)

    async def _refusal(self, scope: Scope, principal: Principal, length: int) -> JSONResponse | None:
        """What a known user is told who may not ask for this, or has asked for too much."""
        path, own = scope["path"], account_of(scope["path"]) == principal.account
        if not (principal.admin or own or path in _FOR_EVERY_USER):
            message = (
                f"user {principal.name!r} belongs to account {principal.account!r} and may use only "
                f"{PREFIX}/accounts/{principal.account}"
            )
            return error_reply(403, message)
        connection: Connection | None = scope.get("state", {}).get(STATE)
        if connection is not None and not connection.authenticated(principal.account):
            return too_many("connections", principal.account)
        try:
            if not principal.admin:
                await self._rate.take(principal.account, length)
        except TooManyBytes as error:
            return epic_error_reply(error)
        return None


def _noted(scope: Scope, principal: Principal, send: Send) -> Send:
    """`send` that leaves a line in the log for each request that changes something, or is not to."""
    if not _changes_something(scope):
        return send

    async def noting(message: Message) -> None:
        # What is missing for now is logged when it begins to be; its clients repeat such requests.
        if message["type"] == "http.response.start" and message["status"] != HTTPStatus.SERVICE_UNAVAILABLE:
            who = f"{principal.account}/{principal.name}" if principal.account else principal.name
            path = scope["path"][:_PATH_SHOWN]
            log.info("%s %s by %s: %d", scope["method"], path, who, message["status"])
        await send(message)

    return noting


def _changes_something(scope: Scope) -> bool:
    return scope["method"] not in {"GET", "HEAD"}


def account_of(path: str) -> str | None:
    """The account that a path is about; None for paths of the whole cluster."""
    parts = path.removeprefix(f"{PREFIX}/accounts/").split("/")
    return parts[0] if path.startswith(f"{PREFIX}/accounts/") and parts[0] else None


def _source(scope: Scope) -> str:
    client = scope.get("client")
    return origin_of(client[0]) if client else ""


def _credentials(header: str, source: str) -> Credentials | None:
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:
        return None
    return Credentials(name, password, source) if colon else None


def _as_json(scope: Scope) -> Scope:
    # Bodies are JSON whatever the client calls them, as in the original.
    headers = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}
