# SPDX-License-Identifier: Apache-2.0
"""Bodies that cannot be read or are wrong in many places: what is told of them."""

from __future__ import annotations

import httpx
import pytest
from api_requests import PROXIES, proxy_body


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "Expecting property name"),
        (b'{"proxy": [], "other": 1' + b"0" * 5000, ""),
        (b'{"proxy": ' + b"9" * 5000 + b"}", "it is no JSON that can be read"),
        (b"\xff", "it is no JSON that can be read"),
        (b"[" * 100_000, "it is no JSON that can be read"),
    ],
    ids=["cut off", "digits and cut off", "digits", "no text", "nested"],
)
async def test_what_cannot_be_read_as_json_is_400_whatever_its_content_type(
    tenant: httpx.AsyncClient, content: bytes, told: str
) -> None:
    reply = await tenant.post(PROXIES, content=content, headers={"content-type": "text/plain"})
    assert reply.status_code == 400
    assert reply.json()["error"].startswith(f"the body is not JSON: {told}")


async def test_a_body_that_is_no_object_is_400(tenant: httpx.AsyncClient) -> None:
    reply = await tenant.post(PROXIES, json=[])
    assert (reply.status_code, reply.json()["error"].startswith("the body: ")) == (400, True)


async def test_of_much_that_is_wrong_a_part_is_told(tenant: httpx.AsyncClient) -> None:
    wrong = {"name": "x" * 9000, "protocol": "y" * 9000, "port": -1}
    for spec in (
        {"public-ports": [wrong] * 60},
        {"gateway": {"listeners": [wrong] * 60}},
    ):
        reply = await tenant.post(PROXIES, json=proxy_body(**spec))
        assert reply.status_code == 400
        assert len(reply.text) < 4000
        assert len(reply.headers["x-epic-error-message"]) < 4000
