"""The control plane's process: the REST API, xDS to the agents and the run queue in one event loop."""

from __future__ import annotations


def main() -> None:
    """The command `epic-control`."""
    # All services are loaded only here, so that settings can be read without them.
    from epic.control.main import run  # noqa: PLC0415

    run()
