# SPDX-License-Identifier: Apache-2.0
"""The control plane's process: the REST API, xDS to the agents and the run queue in one event loop."""

from __future__ import annotations

import os


def main() -> None:
    """The command `epic-control`."""
    # Runs fork to execute Ansible at once; gRPC must not stop its threads for that.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # All services are loaded only here, so that settings can be read without them.
    from epic.control.main import run  # noqa: PLC0415

    run()
