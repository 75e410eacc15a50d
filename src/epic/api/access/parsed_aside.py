# SPDX-License-Identifier: Apache-2.0
"""Bodies are parsed and checked in a thread, where FastAPI does it in the event loop."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

B = TypeVar("B", bound=BaseModel)


def given(model: type[B]) -> Callable[..., B]:
    """A dependency that gives a request's body; what is wrong with it is told as it is of any other."""

    def parse(content: Annotated[bytes, Depends(_content)]) -> B:
        return _parse(model, content)

    return parse


async def _content(request: Request) -> bytes:
    return await request.body()


def described(model: type[BaseModel]) -> dict[str, Any]:
    """The body, for the description of a path."""
    schema = model.model_json_schema()
    content = {"application/json": {"schema": _inlined(schema, schema.get("$defs", {}))}}
    return {"requestBody": {"required": True, "content": content}}


def _parse(model: type[B], content: bytes) -> B:
    try:
        return model.model_validate(json.loads(content))
    except ValidationError as error:
        found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
    except json.JSONDecodeError as error:
        found = [{"type": "json_invalid", "loc": ("body", error.pos), "msg": "", "ctx": {"error": error.msg}}]
    except (ValueError, RecursionError):
        # Bytes that are no text, numbers with thousands of digits, thousands of lists in each other.
        found = [{"type": "json_invalid", "loc": ("body", 0), "msg": "it is no JSON that can be read"}]
    raise RequestValidationError(found)


def _inlined(schema: Any, models: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(item, models) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(models[schema["$ref"].rpartition("/")[2]], models)
    return {key: _inlined(value, models) for key, value in schema.items() if key != "$defs"}
