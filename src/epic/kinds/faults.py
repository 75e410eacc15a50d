# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a field of an object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

Part = str | int


@dataclass(frozen=True, slots=True)
class FieldError:
    """Where it is, as on the wire, and what is wrong with it and would be right."""

    path: tuple[Part, ...]
    message: str

    def under(self, *parts: Part) -> Self:
        """The same as seen from further out."""
        return type(self)((*parts, *self.path), self.message)

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.message}"
