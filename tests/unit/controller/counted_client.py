# SPDX-License-Identifier: Apache-2.0
"""A client of an account that notes what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epic.client import EpicClient
from epic.errors import Unavailable

ACCOUNT = "/api/epic/accounts/shop"


class CountedClient(EpicClient):
    """Notes its requests; some may get no answer."""

    requests: list[str]
    lost: frozenset[str] = frozenset()

    def _json(self, method: str, path: str, body: Mapping[str, object] | None = None, **more: Any) -> Any:
        request = f"{method} {path.removeprefix(ACCOUNT).removesuffix('?limit=500')}"
        self.requests.append(request)
        if self.lost & {method, request}:
            raise Unavailable(f"{method}: no answer")
        return super()._json(method, path, body, **more)


def taken(client: CountedClient) -> list[str]:
    """The requests since it was asked last."""
    found, client.requests = client.requests, []
    return found
