# SPDX-License-Identifier: Apache-2.0
"""Rendering: Jinja2 in a sandbox, from text and plain data to one YAML object.

This module needs little but Jinja2 and PyYAML, so that a process that renders starts quickly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set

import jinja2
import jinja2.meta
import jinja2.sandbox
import yaml

LARGEST = 1 << 20
"""Characters that a template may render."""
# Characters that YAML takes as line breaks or does not take at all; JSON leaves them as they are.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


class RenderError(Exception):
    """A template that cannot be rendered; the text says what is wrong with it."""


def quoted(value: object) -> str:
    """JSON that is YAML too, whatever the value holds."""
    return _UNSAFE.sub(lambda m: f"\\u{ord(m[0]):04x}", json.dumps(value, ensure_ascii=False))


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["tojson"] = quoted
    return environment


_ENVIRONMENT = _environment()


def render(text: str, variables: Mapping[str, object]) -> dict[str, object] | None:
    """Render and parse a template; None when it renders to nothing."""
    try:
        body = _parse(_rendered(text, variables))
    except jinja2.TemplateError as error:
        line = f" in line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise RenderError(f"{error.message or type(error).__name__}{line}") from error
    except yaml.YAMLError as error:
        raise RenderError(f"it renders no YAML: {_brief(error)}") from error
    # Templates call methods of what they are given; their mistakes surface as Python's own errors.
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError, MemoryError) as error:
        raise RenderError(f"{type(error).__name__}: {error}") from error
    if body is None:
        return None
    if not isinstance(body, dict):
        raise RenderError(f"it renders a {type(body).__name__}; it must render one object")
    return body


def check_text(text: str, known: Set[str]) -> None:
    """Raise RenderError when the text is no template, or uses variables besides the known ones."""
    try:
        used = jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(text))
    except jinja2.TemplateSyntaxError as error:
        raise RenderError(f"{error.message} in line {error.lineno}") from error
    strange = sorted(used - known - _ENVIRONMENT.globals.keys())
    if strange:
        raise RenderError(f"there is no {', '.join(strange)}; it may use {', '.join(sorted(known))}")


def _rendered(text: str, variables: Mapping[str, object]) -> str:
    pieces, size = [], 0
    for piece in _ENVIRONMENT.from_string(text).generate(variables):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise RenderError(f"it renders more than {LARGEST} characters")
    return "".join(pieces)


def _parse(text: str) -> object:
    loader = yaml.CSafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_aliases(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_aliases(root: yaml.Node) -> None:
    # A few aliases of aliases can stand for gigabytes.
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            raise yaml.YAMLError("aliases (`*name`) are not allowed")
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]


def _brief(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return str(error)
