# SPDX-License-Identifier: Apache-2.0
"""Run frames through a pinned program for ever: `hammer.py PIN IFINDEX`, the frames as lines of hex on stdin.

A program of its own: the tests' process must not fork, for gRPC starts its threads anew where a fork happens,
and that is a network namespace of a test.
"""

from __future__ import annotations

import sys
from pathlib import Path

from testrun import Program


def main() -> None:
    """Say so once the first frames ran."""
    program = Program(Path(sys.argv[1]), int(sys.argv[2]))
    frames = [bytes.fromhex(line) for line in sys.stdin]
    for frame in frames:
        program.run(frame)
    print("running", flush=True)
    while True:
        for frame in frames:
            program.run(frame)


if __name__ == "__main__":
    main()
