# SPDX-License-Identifier: Apache-2.0
"""The collection's only way to the REST API of EPIC: one client, one set of options."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote

from ansible.module_utils.urls import open_url

TIMEOUT = 10
PAUSE = 0.25
PAGE = 500

CONNECTION_SPEC: dict[str, Any] = {
    "url": {"type": "str", "required": True},
    "credential_file": {"type": "path", "required": True},
    "ca_file": {"type": "path", "required": True},
    "api_timeout": {"type": "int", "default": 30},
}


class ApiError(Exception):
    """A request that the API refused, or could not be sent to it."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Credential:
    """A user of the API; the password does not print."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credential({self.username!r}, ...)"

    @property
    def header(self) -> str:
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


def parse_credential(text: str, origin: str) -> Credential:
    """The user in a credential file: the lines `username: NAME` and `password: SECRET`, maybe quoted."""
    found = dict(re.findall(r"^(username|password):\s*[\"']?(.*?)[\"']?\s*$", text, re.MULTILINE))
    missing = [key for key in ("username", "password") if not found.get(key)]
    if missing:
        raise ApiError(
            f"{origin} holds no {' and no '.join(missing)}; it needs the lines `username:` and `password:`"
        )
    return Credential(found["username"], found["password"])


class Api:
    """Requests to the API; waits at first until it answers at all, for it may just be starting."""

    def __init__(self, url: str, credential: Credential, ca_file: str, wait: int = 0) -> None:
        self._base = url.rstrip("/") + "/api/epic"
        self._ca_file = ca_file
        self._headers = {"Authorization": credential.header, "Content-Type": "application/json"}
        self._deadline = time.monotonic() + wait

    def items(self, *path: str) -> list[dict[str, Any]]:
        """The objects of a collection, page by page; none where the account they belong to is gone meanwhile.

        What belongs to nobody (nodes, accounts) is always there: an API that has not even the collection has
        not said that there are none.
        """
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            query = f"?limit={PAGE}" + (f"&continue={quote(after)}" if after else "")
            try:
                page = self._send("GET", path, query=query)
            except ApiError as error:
                if error.status != 404 or len(path) == 1:
                    raise
                return []
            found += page.get("items", [])
            after = page.get("metadata", {}).get("continue", "")
            if not after:
                return found

    def get(self, *path: str) -> dict[str, Any] | None:
        """The object at the path, or None."""
        try:
            return self._send("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def put(self, body: dict[str, Any], *path: str) -> None:
        """Create or replace the object at the path."""
        self._send("PUT", path, body)

    def delete(self, *path: str, force: bool = False) -> None:
        """Delete the object at the path; by force, without those who would have to confirm it."""
        self._send("DELETE", path, query="?force=true" if force else "")

    def _send(
        self, method: str, path: tuple[str, ...], body: dict[str, Any] | None = None, query: str = ""
    ) -> dict[str, Any]:
        url = "/".join([self._base, *(quote(part, safe="") for part in path)]) + query
        data = None if body is None else json.dumps(body)
        while True:
            try:
                with open_url(
                    url,
                    data,
                    self._headers,
                    method,
                    timeout=TIMEOUT,
                    ca_path=self._ca_file,
                    use_proxy=False,
                    follow_redirects="none",
                ) as reply:
                    return json.loads(reply.read() or b"{}")
            except HTTPError as error:
                # the API answers a write with a redirection to what was written
                if method == "PUT" and error.code == 302:
                    return {}
                raise _refusal(method, url, error) from error
            except (URLError, OSError) as error:
                if time.monotonic() >= self._deadline:
                    raise ApiError(f"{method} {url}: {getattr(error, 'reason', error)}") from error
                time.sleep(PAUSE)


def connect(options: dict[str, Any]) -> Api:
    """The API that a module's options name, as the user whose credential the host keeps."""
    text = Path(options["credential_file"]).read_text("utf-8")
    credential = parse_credential(text, options["credential_file"])
    return Api(options["url"], credential, options["ca_file"], options["api_timeout"])


def _refusal(method: str, url: str, error: HTTPError) -> ApiError:
    """The API's own words where it has any; they say what would be accepted."""
    text = error.read().decode(errors="replace")
    try:
        reply = json.loads(text)
        text = reply.get("error") or reply.get("message") or text
    except (ValueError, AttributeError):
        pass
    return ApiError(f"{method} {url}: {error.code} {text}", error.code)
