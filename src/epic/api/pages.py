# SPDX-License-Identifier: Apache-2.0
"""Lists, whole or in pages: `limit` and `continue` as in Kubernetes.

A page holds the objects that come after one of a name, as they are when it is asked for: what is there from
the first page to the last is in one of them. A list is written here, in the handler's thread, object by
object: thousands at once in the event loop would have everybody wait.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Response

from epic.api.replies import shown
from epic.errors import TooLarge
from epic.model.base import Resource

R = TypeVar("R", bound=Resource)

MOST_BYTES = 8 << 20
"""Of a page, which ends before it has more."""
MOST_BYTES_WHOLE = 32 << 20
"""Of a list that is asked for as a whole: one with more is refused. Some clients know of no pages."""


@dataclass(frozen=True)
class Page:
    """What is asked for: at most `limit` objects (0: all) after the one that is called `after`."""

    limit: int = 0
    after: str = ""


async def _page(
    limit: Annotated[
        int, Query(ge=0, description="How many objects at most; a reply may hold fewer. 0: all.")
    ] = 0,
    after: Annotated[
        str, Query(alias="continue", description="`metadata.continue` of the page before.")
    ] = "",
) -> Page:
    return Page(limit, after)


Paging = Annotated[Page, Depends(_page)]


def listed(
    path: str, objects: Sequence[R], page: Page, show: Callable[[R], dict[str, Any]] = shown
) -> Response:
    """The answer to a list of objects that are in order of name; while there are more, with `continue`.

    Raises TooLarge when all are asked for, and are more than a reply may hold.
    """
    begin = bisect_right(objects, page.after, key=lambda obj: obj.name) if page.after else 0
    wanted = objects[begin : begin + page.limit] if page.limit else objects[begin:]
    parts: list[bytes] = []
    most = MOST_BYTES if page.limit else MOST_BYTES_WHOLE
    room = most
    for obj in wanted:
        part = _json(show(obj))
        room -= len(part) + 1
        if room < 0 and not page.limit:
            raise TooLarge(
                f"the {len(objects)} objects of {path} have more than {most} bytes; ask for them "
                "in pages: ?limit=500, and then with &continue= what metadata.continue of the page before is"
            )
        if room < 0 and parts:
            break
        parts.append(part)
    # Who knows of no pages gets what there was before there were any.
    about = _json(_metadata(objects, begin + len(parts))) if page.limit else b""
    metadata = b',"metadata":' + about if about else b""
    content = b'{"link":%b%b,"items":[%b]}' % (_json({"self": path}), metadata, b",".join(parts))
    return Response(content, media_type="application/json")


def _metadata(objects: Sequence[Resource], end: int) -> dict[str, Any]:
    left = len(objects) - end
    return {"continue": objects[end - 1].name, "remainingItemCount": left} if left and end else {}


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
