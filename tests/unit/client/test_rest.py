# SPDX-License-Identifier: Apache-2.0
"""EpicClient against a small server: redirects, conflicts, errors, credentials, watches."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from epic.api.replies import epic_error_reply
from epic.client import EpicClient
from epic.errors import (
    Conflict,
    EpicError,
    Exhausted,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    kind_of,
)


@dataclass
class Reply:
    status: int
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    url: str = ""
    replies: dict[tuple[str, str], Reply] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    stream: list[bytes] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            server.seen.append((self.command, self.path, dict(self.headers), body))
            if self.path == "/watch":
                return self._stream()
            reply = server.replies.get((self.command, self.path), Reply(404, {"error": "no such thing"}))
            data = b"" if reply.body is None else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for key, value in reply.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return None

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in server.stream:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            if server.hold.is_set():
                time.sleep(3)
            self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def client(server: Server) -> Iterator[EpicClient]:
    with EpicClient(server.url, "ann", "secret-ä") as client:
        yield client


def test_get_sends_the_credentials_and_returns_the_object(server: Server, client: EpicClient) -> None:
    server.replies["GET", "/a"] = Reply(200, {"x": 1})
    assert client.get("/a") == {"x": 1}
    scheme, value = server.seen[0][2]["Authorization"].split()
    assert (scheme, base64.b64decode(value).decode()) == ("Basic", "ann:secret-ä")


def test_post_takes_the_object_from_the_redirect_itself(server: Server, client: EpicClient) -> None:
    server.replies["POST", "/a"] = Reply(302, {"made": True}, {"Location": "/a/1"})
    assert client.post("/a", {"n": 1}) == {"made": True}
    assert [seen[:2] for seen in server.seen] == [("POST", "/a")]


def test_a_redirect_without_body_is_followed_with_get(server: Server, client: EpicClient) -> None:
    server.replies["PUT", "/a/1"] = Reply(302, None, {"Location": "/a/1"})
    server.replies["GET", "/a/1"] = Reply(200, {"x": 2})
    assert client.put("/a/1", {"n": 1}) == {"x": 2}


def test_posting_what_exists_answers_the_existing_object(server: Server, client: EpicClient) -> None:
    server.replies["POST", "/a"] = Reply(409, {"message": "exists"}, {"Location": "/a/1"})
    server.replies["GET", "/a/1"] = Reply(200, {"old": True})
    assert client.post("/a", {}) == {"old": True}


def test_what_a_server_warns_of_can_be_taken_once(server: Server, client: EpicClient) -> None:
    said = '299 - "unknown field \\"a.b\\"", 299 - "2 more, and \\u00e4"'
    server.replies["PUT", "/a"] = Reply(302, {"x": 1}, {"Warning": said, "Location": "/a"})
    client.put("/a", {})
    assert client.take_warnings() == ['unknown field "a.b"', "2 more, and ä"]
    assert client.take_warnings() == []
    for odd in ("", "299", '299 - "open', '299 - "\\x"'):
        server.replies["PUT", "/a"] = Reply(302, {"x": 1}, {"Warning": odd, "Location": "/a"})
        client.put("/a", {})
    assert client.take_warnings() == ['"\\x"']


def test_a_redirect_to_another_server_is_refused(server: Server, client: EpicClient) -> None:
    server.replies["POST", "/a"] = Reply(302, None, {"Location": "http://other.example/a"})
    with pytest.raises(Unavailable, match=r"other\.example"):
        client.post("/a", {})


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        pytest.param(Reply(400, {"error": "port: too high"}), Invalid, "port: too high", id="bad-input"),
        pytest.param(Reply(401, {"error": "wrong"}), Unauthorized, "'ann'", id="wrong-password"),
        pytest.param(Reply(403, {"error": "not yours"}), Forbidden, "not yours", id="other-account"),
        pytest.param(Reply(404, {"error": "no group"}), NotFound, "no group", id="missing"),
        pytest.param(Reply(409, {"error": "changed"}), Conflict, "changed", id="conflict"),
        pytest.param(
            Reply(503, {"error": "pool empty", "reason": "NoRoom"}), Exhausted, "pool empty", id="exhausted"
        ),
        pytest.param(Reply(503, {"error": "starting"}), Unavailable, "starting", id="away"),
        pytest.param(
            Reply(503, {"error": "disk full"}, {"Retry-After": "10"}), Unavailable, "disk full", id="later"
        ),
        pytest.param(
            Reply(429, {"error": "too many"}, {"Retry-After": "1"}),
            TooManyRequests,
            "too many",
            id="too-many",
        ),
        pytest.param(
            Reply(500, None, {"x-epic-error-message": "broken"}), Unavailable, "broken", id="header-only"
        ),
        pytest.param(Reply(200, [1]), Unavailable, "EPIC server", id="no-object"),
    ],
)
def test_errors_carry_the_servers_message(
    server: Server, client: EpicClient, reply: Reply, kind: type[EpicError], message: str
) -> None:
    server.replies["GET", "/a"] = reply
    with pytest.raises(kind, match=message):
        client.get("/a")


def _kinds(parent: type[EpicError] = EpicError) -> Iterator[type[EpicError]]:
    for kind in parent.__subclasses__():
        if kind.__module__ == "epic.errors":
            yield kind
            yield from _kinds(kind)


@pytest.mark.parametrize("kind", list(_kinds()), ids=lambda kind: kind.__name__)
def test_a_client_raises_the_kind_of_error_that_the_server_met(
    server: Server, client: EpicClient, kind: type[EpicError]
) -> None:
    reply = epic_error_reply(kind("no, because"))
    server.replies["GET", "/a"] = Reply(reply.status_code, json.loads(bytes(reply.body)))
    with pytest.raises(EpicError, match="no, because") as raised:
        client.get("/a")
    met = raised.value
    if reply.status_code == 500:
        # What is wrong within the server is that it does not serve just now.
        assert type(met) is Unavailable
    else:
        assert issubclass(kind, type(met))
        assert (met.status, met.reason) == (kind.status, kind.reason)


@pytest.mark.parametrize(
    ("status", "kind"), [(302, Unavailable), (405, Invalid), (413, TooLarge), (502, Unavailable)]
)
def test_a_refusal_without_a_word_is_judged_by_its_status(status: int, kind: type[EpicError]) -> None:
    assert kind_of(status) is kind
    assert kind_of(status, "NeverHeardOf") is kind


def test_find_is_none_where_there_is_nothing(client: EpicClient) -> None:
    assert client.find("/none") is None


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1/a"):
        EpicClient("http://127.0.0.1:1", "u", "p").get("/a")


@pytest.mark.parametrize("server", ["epic1:8443", "ftp://epic1", "https://u:p@epic1"])
def test_a_wrong_server_url_says_what_would_be_right(server: str) -> None:
    with pytest.raises(Invalid, match="https://epic1:8443"):
        EpicClient(server, "u", "p")


def test_watch_gives_each_events_data_and_skips_comments(server: Server, client: EpicClient) -> None:
    server.stream = [
        b": hello\n\nevent: x\nda",
        b'ta: {"n":1}\n\n',
        b'data: {"n":\ndata: 2}\n\n: still here\n\n',
    ]
    assert list(client.watch("/watch")) == [{"n": 1}, {"n": 2}]


def test_a_watch_can_be_closed_by_another_thread(server: Server, client: EpicClient) -> None:
    server.stream = [b'data: {"n":1}\n\n']
    server.hold.set()
    watch = client.watch("/watch")
    assert next(watch) == {"n": 1}
    begin = time.monotonic()
    threading.Timer(0.1, watch.close).start()
    assert list(watch) == []
    assert time.monotonic() - begin < 2


def test_a_list_is_read_page_by_page(client: EpicClient, server: Server) -> None:
    first = {"items": [{"n": 1}, {"n": 2}], "metadata": {"continue": "a/b", "remainingItemCount": 1}}
    server.replies["GET", "/list?limit=500"] = Reply(200, first)
    server.replies["GET", "/list?limit=500&continue=a%2Fb"] = Reply(
        200, {"items": [{"n": 3}], "metadata": {}}
    )
    assert client.list_all("/list") == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_list_of_a_server_without_pages_is_whole(client: EpicClient, server: Server) -> None:
    server.replies["GET", "/list?limit=500"] = Reply(200, {"items": [{"n": 1}]})
    assert client.list_all("/list") == [{"n": 1}]


def test_what_is_no_list_is_no_list(client: EpicClient, server: Server) -> None:
    server.replies["GET", "/list?limit=500"] = Reply(200, {"items": "all"})
    with pytest.raises(Unavailable, match="the reply is no list"):
        client.list_all("/list")
