# SPDX-License-Identifier: Apache-2.0
"""How the API answers: statuses, headers and links of the original, and errors in one place."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from epic.api.access.attempts import TooManyAttempts
from epic.api.access.body_rate import TooManyBytes
from epic.api.context import Context, Principal
from epic.errors import AlreadyExists, Damaged, EpicError, Exhausted, Unavailable, reason_of
from epic.model.base import Resource

PREFIX = "/api/epic"
ERROR_HEADER = "x-epic-error-message"

log = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 10
_MOST_WARNINGS = 8
_WARNING_SHOWN = 100
_MOST_ERRORS = 8
_NAME_SHOWN = 100
_HEADER_SHOWN = 4000


class Duplicate(AlreadyExists):
    """A create of an object that exists at `path`; clients go on with that object.

    `existing` is the object by its key, where the original shows it.
    """

    def __init__(self, message: str, path: str, existing: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.existing = dict(existing or {})


def shown(obj: Resource) -> dict[str, Any]:
    """An object as the API shows it; the resource version is a string, as in Kubernetes."""
    wire: dict[str, Any] = obj.wire()
    wire["metadata"]["resourceVersion"] = str(obj.metadata.resource_version)
    return wire


def found(path: str, body: dict[str, Any], unknown: Sequence[str] = ()) -> JSONResponse:
    """The answer to a write: where the object is, and the object; warnings of fields that are ignored."""
    reply = JSONResponse(body, 302, headers={"Location": path})
    for field in unknown[:_MOST_WARNINGS]:
        # As Kubernetes says it. What is not ASCII is escaped: it is a header's.
        text = json.dumps(f'unknown field "{field[:_WARNING_SHOWN]}"')
        reply.headers.append("Warning", f"299 - {text}")
    if len(unknown) > _MOST_WARNINGS:
        more = len(unknown) - _MOST_WARNINGS
        reply.headers.append("Warning", f'299 - "{more} more unknown fields"')
    return reply


def deleted(message: str = "delete successful") -> dict[str, str]:
    """The answer to a delete, also of an object that was not there."""
    return {"message": message}


def error_reply(
    status: int, message: str, headers: dict[str, str] | None = None, *, reason: str = ""
) -> JSONResponse:
    """An error as the original's clients read it; `reason` is a word for programs, by default the status'."""
    # A header holds one line of Latin-1; the body has the text as it is.
    line = " ".join(message[:_HEADER_SHOWN].split()).encode("latin-1", "replace").decode("latin-1")
    body = {"error": message, "reason": reason or reason_of(status)}
    return JSONResponse(body, status, headers={ERROR_HEADER: line, **(headers or {})})


def install_error_handlers(app: FastAPI) -> None:
    """Turn every exception into a reply, here and nowhere else."""
    app.add_exception_handler(EpicError, _on_epic_error)
    app.add_exception_handler(RequestValidationError, _on_bad_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)


async def _on_epic_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EpicError)  # noqa: S101
    principal: Principal | None = getattr(request.state, "principal", None)
    if isinstance(error, Exhausted):
        # Who asked is told that there is no room; why is for the platform's operators to see.
        context: Context = request.app.state.context
        context.no_room.warning(str(error), error.whole)
    return epic_error_reply(error, admin=principal is not None and principal.admin)


def epic_error_reply(error: EpicError, *, admin: bool = False) -> JSONResponse:
    """An error of ours; administrators read its detail too, if that is about what they have asked for."""
    if isinstance(error, Duplicate):
        link = {"self": error.path}
        body = {"message": str(error), "reason": error.reason, "link": link, **error.existing}
        return JSONResponse(body, error.status, headers={"Location": error.path})
    # What the host of the control plane is short of is in its log, once.
    own = isinstance(error, Unavailable | Damaged)
    headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if isinstance(error, Unavailable) else {}
    if isinstance(error, TooManyAttempts | TooManyBytes):
        headers["Retry-After"] = str(error.seconds)
    message = error.whole if admin and not own else str(error)
    return error_reply(error.status, message, headers, reason=error.reason)


def too_many(what: str, account: str) -> JSONResponse:
    """The refusal of one more connection or event stream of the account; the connection is closed."""
    whose = f"account {account!r} has" if account else "the administrators have"
    headers = {"Retry-After": str(_RETRY_AFTER_SECONDS), "Connection": "close"}
    return error_reply(429, f"{whose} too many {what} open; close some, or repeat it later", headers)


async def _on_bad_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = error.errors()
    told = "; ".join(_explain(each) for each in errors[:_MOST_ERRORS])
    more = len(errors) - _MOST_ERRORS
    return error_reply(400, f"{told}; and {more} more" if more > 0 else told)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    message = {
        404: f"there is nothing at {request.url.path}; {PREFIX}/openapi.json lists the paths",
        405: f"{request.method} is not possible at {request.url.path}",
    }.get(error.status_code, str(error.detail))
    return error_reply(error.status_code, message, dict(error.headers or {}))


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_reply(500, "internal error; the log of epic-control says more")


def _explain(error: dict[str, Any]) -> str:
    if error["type"] == "json_invalid":
        detail = error.get("ctx", {}).get("error", error["msg"])
        return f"the body is not JSON: {detail} at character {error['loc'][-1]}"
    # A client gives the keys of mappings names of any length.
    where = ".".join(str(part)[:_NAME_SHOWN] for part in error["loc"] if part != "body") or "the body"
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    secret = "password" in error["loc"]
    if secret or not isinstance(given, str | int | float | bool):
        return f"{where}: {message}"
    return f"{where}: {message} (it is {str(given)[:80]!r})"
