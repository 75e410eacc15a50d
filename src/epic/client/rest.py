# SPDX-License-Identifier: Apache-2.0
"""Requests to the REST API: TLS verified, redirects understood, errors raised with the server's own words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3.util.retry import Retry

from epic.client.watch import Watch
from epic.errors import EpicError, Invalid, NotFound, Unauthorized, Unavailable, kind_of

PREFIX = "/api/epic"
ERROR_HEADER = "x-epic-error-message"

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
_MESSAGE_MAX = 2000
_PAGE = 500
_WARNINGS_MAX = 16_000
_WARNING = re.compile(r'299 \S+ ("(?:[^"\\]|\\.)*")')
# Longer than two of the server's heartbeats: a watch that hears nothing for so long is dead.
_SILENCE_SECONDS = 25.0


class EpicClient:
    """A user's session with one EPIC server; methods take paths such as `/api/epic/accounts/shop`."""

    def __init__(self, server: str, username: str, password: str, ca_file: str | Path | None = None) -> None:
        self.server = _checked_server(server)
        self.username = username
        self._warnings: list[str] = []
        self._session = requests.Session()
        # Proxies and netrc of the caller's environment must not decide where credentials go.
        self._session.trust_env = False
        self._session.auth = HTTPBasicAuth(username.encode(), password.encode())
        self._session.verify = _checked_ca(ca_file) if ca_file is not None else True
        self._session.headers["Accept"] = "application/json"
        adapter = HTTPAdapter(max_retries=_retries())
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def as_user(self, username: str, password: str) -> EpicClient:
        """A session of another user with the same server."""
        ca_file = self._session.verify if isinstance(self._session.verify, str) else None
        return EpicClient(self.server, username, password, ca_file)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def get(self, path: str) -> dict[str, Any]:
        """The object or list at `path`."""
        return self._json("GET", path)

    def list_all(self, path: str) -> list[dict[str, Any]]:
        """All items of the list at `path`, page by page."""
        items: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            query = urlencode({"limit": _PAGE, "continue": after} if after else {"limit": _PAGE})
            page = self.get(f"{path}?{query}")
            found, metadata = page.get("items"), page.get("metadata") or {}
            if not isinstance(found, list) or not isinstance(metadata, dict):
                raise Unavailable(f"GET {self._where(path)}: the reply is no list; is this an EPIC server?")
            items += found
            after = str(metadata["continue"]) if metadata.get("continue") else None
        return items

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Create an object; the reply is the object, the existing one where there is one of that name."""
        return self._json("POST", path, body)

    def create(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Create an object; the reply is the object. Raises AlreadyExists where there is one of that name."""
        return self._json("POST", path, body, is_new=True)

    def put(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Replace the object at `path`; the reply is the object."""
        return self._json("PUT", path, body)

    def delete(self, path: str) -> dict[str, Any]:
        """Delete the object at `path`; there need be none."""
        return self._json("DELETE", path)

    def take_warnings(self) -> list[str]:
        """What the server warned of in replies since this was asked last, such as a field that it ignored."""
        found, self._warnings = self._warnings, []
        return found

    def find(self, path: str) -> dict[str, Any] | None:
        """The object at `path`, None where there is none."""
        try:
            return self.get(path)
        except NotFound:
            return None

    def watch(self, path: str) -> Watch:
        """The data of each server-sent event at `path`; the caller connects anew when it ends or raises."""
        reply = self._send("GET", path, stream=True, read_seconds=_SILENCE_SECONDS)
        if reply.status_code != 200:
            raise self._error("GET", path, reply)
        return Watch(reply, f"watch of {self._where(path)}")

    def _json(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *, is_new: bool = False
    ) -> dict[str, Any]:
        reply = self._send(method, path, body)
        self._warnings += _warnings(reply)
        exists = reply.status_code == 409 and "Location" in reply.headers
        if reply.status_code in {302, 303} or (exists and not is_new):
            own = _object(reply) if reply.status_code != 409 else None
            if own:
                return own
            path = self._local(reply.headers.get("Location", ""), reply)
            method, reply = "GET", self._send("GET", path)
        if not 200 <= reply.status_code < 300:
            raise self._error(method, path, reply)
        answer = _object(reply)
        if answer is None:
            raise Unavailable(
                f"{method} {self._where(path)}: the reply is not a JSON object; is this an EPIC server?"
            )
        return answer

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        stream: bool = False,
        read_seconds: float = _READ_SECONDS,
    ) -> requests.Response:
        try:
            return self._session.request(
                method,
                self._where(path),
                json=body,
                stream=stream,
                timeout=(_CONNECT_SECONDS, read_seconds),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise Unavailable(f"{method} {self._where(path)}: {_reason(error)}") from error

    def _where(self, path: str) -> str:
        return self.server + path

    def _local(self, location: str, reply: requests.Response) -> str:
        # Credentials go to no other server than the one they are for.
        absolute = urlsplit(urljoin(reply.url, location))
        if f"{absolute.scheme}://{absolute.netloc}" != self.server:
            raise Unavailable(
                f"{self.server} sends its client on to {location!r}, which is not on that server"
            )
        return absolute._replace(scheme="", netloc="").geturl()

    def _error(self, method: str, path: str, reply: requests.Response) -> EpicError:
        value = _object(reply) or {}
        kind = kind_of(reply.status_code, str(value.get("reason") or ""))
        message = _message(reply)
        if kind is Unauthorized:
            return Unauthorized(f"{self.server} refuses user {self.username!r}: {message}")
        if issubclass(kind, Unavailable):
            return kind(f"{method} {self._where(path)}: {message} (status {reply.status_code})")
        return kind(message)


def _retries() -> Retry:
    # A kept connection may be closed by the server just as a request goes out; these may be repeated.
    return Retry(
        total=2,
        connect=2,
        read=1,
        redirect=0,
        status=0,
        other=0,
        backoff_factor=0.3,
        allowed_methods=frozenset({"GET", "PUT", "DELETE"}),
        raise_on_redirect=False,
        # Such a reply is an answer, and says why.
        respect_retry_after_header=False,
    )


def _checked_server(server: str) -> str:
    parts = urlsplit(server)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
        raise Invalid(
            f"server: {server!r} is not right; write a URL such as https://epic1:8443, without user"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _checked_ca(ca_file: str | Path) -> str:
    if not Path(ca_file).is_file():
        raise Invalid(
            f"ca-file: there is no file {ca_file}; it holds the certificate that verifies the server"
        )
    return str(ca_file)


def _object(reply: requests.Response) -> dict[str, Any] | None:
    try:
        value = reply.json()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _message(reply: requests.Response) -> str:
    value = _object(reply) or {}
    for key in ("error", "message", "detail"):
        if isinstance(value.get(key), str):
            return str(value[key])[:_MESSAGE_MAX]
    return str(reply.headers.get(ERROR_HEADER) or reply.reason or "no message")[:_MESSAGE_MAX]


def _warnings(reply: requests.Response) -> list[str]:
    """The texts of `Warning` headers, which requests joins by commas."""
    quoted = _WARNING.findall(reply.headers.get("Warning", "")[:_WARNINGS_MAX])
    return [text for one in quoted if isinstance(text := _unquoted(one), str)]


def _unquoted(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _reason(error: requests.RequestException) -> str:
    match error:
        case requests.exceptions.SSLError():
            return f"the server's certificate is not accepted; ca-file must name its authority ({error})"
        case requests.exceptions.ConnectTimeout():
            return f"no connection within {_CONNECT_SECONDS:g} s"
        case requests.exceptions.Timeout():
            return f"no answer within {_READ_SECONDS:g} s"
        case _:
            return f"no connection ({_root(error)})"


def _root(error: BaseException) -> str:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__
