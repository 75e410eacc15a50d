"""epic-pki: the command by which the roles make keys and certificates; it answers in JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from epic.pki import operations
from epic.pki.certificates import RequestError
from epic.pki.directory import PkiError
from epic.pki.operations import Pki, Result

DAYS = 825


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
            made = operations.control(pki, options.name, options.group, options.days)
            key = operations.ssh_key(pki, options.ssh_key, options.user)
            return {**made, "changed": made["changed"] or key["changed"]}
        case "csr":
            return operations.request(pki, options.name)
        case "sign":
            return operations.sign(pki, options.name, sys.stdin.buffer.read(), options.days)
        case "install":
            return operations.install(pki, sys.stdin.buffer.read())
        case _:
            return operations.public(pki, options.ssh_key)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="epic-pki", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path("/etc/epic/pki"), help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="write nothing, only say what would change")
    kinds = parser.add_subparsers(dest="operation", required=True)
    control = kinds.add_parser(
        "control", help="control host: the authority, the server's certificate, the runs' key"
    )
    control.add_argument(
        "--name", action="append", required=True, help="host name or address; repeat for more"
    )
    control.add_argument("--group", help="group that may read the server's key")
    control.add_argument("--user", default="epic", help="owner of the runs' SSH key")
    csr = kinds.add_parser("csr", help="node: the agent's key and, when it needs one, a certificate request")
    sign = kinds.add_parser("sign", help="control host: sign a node's request from standard input")
    kinds.add_parser("install", help="node: put the certificate from standard input in place")
    public = kinds.add_parser("public", help="control host: what nodes must know of it")
    for kind in (csr, sign):
        kind.add_argument("--name", required=True, help="the node's name")
    for kind in (control, sign):
        kind.add_argument("--days", type=int, default=DAYS, help="validity; default: %(default)s")
    for kind in (control, public):
        kind.add_argument(
            "--ssh-key", type=Path, default=Path("/var/lib/epic/control/ssh/id_ed25519"), help="the runs' key"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
