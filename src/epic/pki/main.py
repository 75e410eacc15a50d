# SPDX-License-Identifier: Apache-2.0
"""epic-pki: the command by which the roles make keys and certificates; it answers in JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from epic.pki import operations
from epic.pki.certificates import RequestError
from epic.pki.directory import PkiError
from epic.pki.operations import Pki, Result

SERVER_DAYS = 90
AGENT_HOURS = 24


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one operation and print what it did."""
    options = _parser().parse_args(arguments)
    try:
        result = _run(options, Pki(options.directory, datetime.now(UTC), options.check))
    except (PkiError, RequestError, OSError) as error:
        print(f"epic-pki {options.operation}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


def _run(options: argparse.Namespace, pki: Pki) -> Result:
    match options.operation:
        case "control":
            made = operations.control(pki, options.name, options.group, timedelta(days=options.days))
            key = operations.ssh_key(pki, options.ssh_key, options.user)
            return {**made, "changed": made["changed"] or key["changed"]}
        case "csr":
            return operations.request(pki, options.name, renew=options.renew)
        case "sign":
            life = timedelta(hours=options.hours)
            return operations.sign(pki, options.name, sys.stdin.buffer.read(), life)
        case "install":
            return operations.install(pki, sys.stdin.buffer.read())
        case "show":
            return operations.show(pki)
        case _:
            return operations.public(pki, options.ssh_key)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="epic-pki", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path("/etc/epic/pki"), help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="write nothing, only say what would change")
    kinds = parser.add_subparsers(dest="operation", required=True)
    control = kinds.add_parser(
        "control", help="control host: the authorities, the server's certificate, the runs' key"
    )
    control.add_argument(
        "--name", action="append", required=True, help="host name or address; repeat for more"
    )
    control.add_argument(
        "--group", help="group that may read the keys of the server and of the agents' authority"
    )
    control.add_argument("--user", default="epic", help="owner of the runs' SSH key")
    control.add_argument(
        "--days",
        type=int,
        default=SERVER_DAYS,
        help="validity of the server's certificate; default: %(default)s",
    )
    csr = kinds.add_parser("csr", help="node: a request for a certificate, when the agent needs one")
    csr.add_argument("--renew", action="store_true", help="also when it has a good one")
    sign = kinds.add_parser("sign", help="control host: sign a node's request from standard input")
    sign.add_argument("--hours", type=int, default=AGENT_HOURS, help="validity; default: %(default)s")
    kinds.add_parser("install", help="node: put the certificate from standard input in place")
    kinds.add_parser("show", help="node: how long the agent's certificate is valid")
    public = kinds.add_parser("public", help="control host: what nodes must know of it")
    for kind in (csr, sign):
        kind.add_argument("--name", required=True, help="the node's name")
    for kind in (control, public):
        kind.add_argument(
            "--ssh-key", type=Path, default=Path("/var/lib/epic/control/ssh/id_ed25519"), help="the runs' key"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
