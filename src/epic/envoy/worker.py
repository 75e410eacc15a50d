# SPDX-License-Identifier: Apache-2.0
"""The process that renders templates of tenants: it may use little time and memory, and may write no file.

Standard input: [text, variables] as JSON, a line each. Standard output: [object, fault] as JSON, a line each:
who reads it has others to serve between two lines.
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
    output = "\n".join(json.dumps(_result(*json.loads(line))) for line in sys.stdin)
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
