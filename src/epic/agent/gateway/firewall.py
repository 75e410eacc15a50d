"""The elements of the nft set `inet epic gateway_ports`; the set itself and the rules are the role's."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address

from epic.agent.gateway.desired import Element
from epic.errors import Unavailable

log = logging.getLogger(__name__)

TABLE = "epic"
SET = "gateway_ports"
_SECONDS = 10
# By name or by number: nft looks names up in /etc/protocols, which a small host may lack.
_PROTOCOLS = {"6": "tcp", "17": "udp"}


class PortSet:
    """The set in the network namespace of the process. Its absence is said and borne."""

    def __init__(self) -> None:
        self._known: frozenset[Element] = frozenset()
        self._trouble = ""

    def elements(self) -> frozenset[Element]:
        """What is in the set now; what was there last when that cannot be told."""
        done = _nft(["--json", "list", "set", "inet", TABLE, SET])
        if done.returncode == 0:
            self._trouble = ""
            self._known = frozenset(parse(done.stdout))
        elif "No such file or directory" in done.stderr:
            self._log_once(
                f"there is no nft set inet {TABLE} {SET}: epic-node.service has not loaded the firewall's "
                "base rules; gateways' ports are not opened until it has"
            )
            self._known = frozenset()
        else:
            self._log_once(f"nft cannot list set inet {TABLE} {SET}: {_first_line(done.stderr)}")
        return self._known

    def change(self, *, add: Collection[Element] = (), delete: Collection[Element] = ()) -> None:
        """Add and delete elements in one transaction."""
        if self._trouble:
            return
        done = _nft(["--file", "-"], commands(add, delete))
        if done.returncode != 0:
            raise Unavailable(f"nft refuses a change of {SET}: {_first_line(done.stderr)}")

    def _log_once(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.error("%s", trouble)
        self._trouble = trouble


def commands(add: Collection[Element], delete: Collection[Element]) -> str:
    """The script for nft."""
    lines = [
        f"{verb} element inet {TABLE} {SET} {{ {', '.join(_text(e) for e in sorted(elements))} }}\n"
        for verb, elements in (("delete", delete), ("add", add))
        if elements
    ]
    return "".join(lines)


def parse(listing: str) -> Iterator[Element]:
    """The elements in the output of `nft --json list set`."""
    for item in json.loads(listing)["nftables"]:
        for element in item.get("set", {}).get("elem", ()):
            value = element.get("elem", {}).get("val", element) if "elem" in element else element
            address, protocol, port = value["concat"]
            yield Element(IPv4Address(address), _PROTOCOLS.get(str(protocol), str(protocol)), int(port))


def _text(element: Element) -> str:
    return f"{element.address} . {element.protocol} . {element.port}"


def _nft(arguments: list[str], script: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["nft", *arguments],
        input=script,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0] or "no message"
