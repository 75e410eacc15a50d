# SPDX-License-Identifier: Apache-2.0
"""Limits of fields, declared with them: `Annotated[str, Text(253)]`.

Who reads an object does not check them, so that what is stored stays readable when a limit changes; who takes
one from a client does (`epic.kinds.validation`). The API's schema shows them. Of what has many items
only the first that is none of its kind is told of: an error takes kilobytes, and a client can make a million.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema

_SHOWN = 80


@dataclass(frozen=True)
class Items:
    """How many a list or mapping has at most; `what` they are.

    A client may give more of which some say the same where there is a number `given` of them.
    """

    most: int
    what: str = "items"
    given: int = 0

    def allows(self, value: Any) -> bool:
        """Whether a value is within the limit."""
        return len(value) <= self.most

    def may_be(self, value: Any) -> bool:
        """Whether what a client gives can come to be within the limit."""
        return len(value) <= max(self.most, self.given)

    def explain(self, value: Any) -> str:
        """What is wrong with a value that is not, and what would be right."""
        return f"{len(value)} {self.what}; at most {self.most} are possible"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: Any = handler(source)
        items = schema["schema"] if schema["type"] == "nullable" else schema
        items["fail_fast"] = True
        return cast("CoreSchema", schema)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        schema["maxProperties" if schema.get("type") == "object" else "maxItems"] = self.most
        return schema


@dataclass(frozen=True)
class Text:
    """How many characters a text has, and which it may be, as a regular expression and in words."""

    most: int
    least: int = 0
    pattern: str = ""
    right: str = ""

    @cached_property
    def _matches(self) -> Callable[[str], object]:
        return re.compile(self.pattern).fullmatch

    def allows(self, value: Any) -> bool:
        """Whether a value is within the limit."""
        if not self.least <= len(value) <= self.most:
            return False
        return not self.pattern or self._matches(value) is not None

    def explain(self, value: Any) -> str:
        """What is wrong with a value that is not, and what would be right."""
        if self.least <= len(value) <= self.most:
            return f"it is {value[:_SHOWN]!r}, and should be {self.right}"
        expected = f"{self.least} to {self.most}" if self.least else f"at most {self.most}"
        return f"it has {len(value)} characters, and should have {expected}"

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        shown: Mapping[str, Any] = {
            "minLength": self.least,
            "maxLength": self.most,
            "pattern": f"^(?:{self.pattern})$" if self.pattern else "",
        }
        return {**handler(core), **{key: value for key, value in shown.items() if value}}


Limit = Items | Text
