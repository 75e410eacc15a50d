# SPDX-License-Identifier: Apache-2.0
"""The process that renders templates of tenants: it may use little time and memory, and may write no file.

Standard input: a JSON list of [text, variables]. Standard output: a JSON list of [object, fault].
"""

from __future__ import annotations

import json
import resource
import sys

from epic.envoy.rendering import RenderError, render

_CPU_SECONDS = 3
_MEMORY = 512 << 20
_LARGEST = 16 << 20


def main() -> None:
    """Render what standard input asks for."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    # Pipes have no size in this sense: only files are meant.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    results = [_result(text, variables) for text, variables in json.load(sys.stdin)]
    output = json.dumps(results)
    if len(output) > _LARGEST:
        raise SystemExit(f"more than {_LARGEST} characters in all")
    sys.stdout.write(output)


def _result(text: str, variables: dict[str, object]) -> tuple[object, str | None]:
    try:
        return render(text, variables), None
    except RenderError as error:
        return None, str(error)


if __name__ == "__main__":
    main()
