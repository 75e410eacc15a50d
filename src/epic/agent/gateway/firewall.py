# SPDX-License-Identifier: Apache-2.0
"""The firewall of gateways: its rules are in force, and the ports of this node's gateways are open in it.

The rules, and the sets `gateway_ports` and `gateway_ports6` of the table `inet epic`, come from a file of the
role; the sets' elements are ours. We keep them in a file, too, which that of the role includes: who loads the
rules opens the ports at once.
"""

from __future__ import annotations

import asyncio
import collections
import json
import logging
import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from epic.agent.gateway.desired import Element
from epic.agent.netlink import nftables
from epic.agent.runtime.files import write_atomically
from epic.agent.runtime.log_once import LogOnce
from epic.agent.runtime.worker import Worker
from epic.errors import EpicError, Unavailable

log = logging.getLogger(__name__)

TABLE = "epic"
SETS = {4: "gateway_ports", 6: "gateway_ports6"}
"""By the family of the addresses."""
RESYNC_SECONDS = 5.0
_RETRY_SECONDS = 0.5
# Rules that somebody took away are back after so long, or count as missing.
_ALARM_SECONDS = 0.8
_NFT_SECONDS = 10
# By name or by number: nft looks names up in /etc/protocols, which a small host may lack.
_PROTOCOLS = {"6": "tcp", "17": "udp"}
_NOT_THERE = "No such file or directory"
_NONE: frozenset[Element] = frozenset()
# Processes of ours: nft's messages name them as their sender.
_own: collections.deque[int] = collections.deque(maxlen=32)
_FAILURES = (EpicError, OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, AttributeError)


class RulesMissing(Unavailable):
    """The rules are not in force, and cannot be loaded."""


class Firewall:
    """Keeps the firewall right on a thread of its own: a slow `nft` holds up nothing else.

    `file` has the rules and includes `ports`, which has the set's elements. `changed` is called when `open`
    or `broken` has changed.
    """

    def __init__(self, file: Path, ports: Path, changed: Callable[[], None]) -> None:
        self._file = file
        self._ports = ports
        self._kept: frozenset[Element] | None = None
        self._changed = changed
        self._worker = Worker("nft")
        self._wake = asyncio.Event()
        self._alarmed = False
        self._wanted: frozenset[Element] = _NONE
        self._may_close = False
        self._rules = ""
        self._troubles = LogOnce(log)
        self._state: tuple[frozenset[Element], bool] = _NONE, False

    @property
    def open(self) -> frozenset[Element]:
        """The ports that are open, as far as is known."""
        return self._state[0]

    @property
    def broken(self) -> bool:
        """Whether the rules are known not to be in force: nothing may be announced."""
        return self._state[1]

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it now."""
        return self._troubles.problems

    def want(self, elements: frozenset[Element], *, may_close: bool) -> None:
        """These ports are to be open; others are closed only if they may be."""
        if (elements, may_close) != (self._wanted, self._may_close):
            self._wanted, self._may_close = elements, may_close
            self._wake.set()

    async def run(self) -> None:
        """Keep it right until cancelled: after each change of anybody's, and every few seconds."""
        unwatch = nftables.monitor(TABLE, SETS.values(), self._hear, _own)
        try:
            while True:
                self._wake.clear()
                fine = await self._mend_soon()
                with suppress(TimeoutError):
                    async with asyncio.timeout(RESYNC_SECONDS if fine else _RETRY_SECONDS):
                        await self._wake.wait()
        finally:
            unwatch()

    def close(self) -> None:
        """End; the firewall stays."""
        self._worker.close()

    def _hear(self, change: nftables.Change) -> None:
        self._alarmed |= change == "rules"
        self._wake.set()

    async def _mend_soon(self) -> bool:
        """What was taken away is back soon, or counts as missing until it is."""
        alarmed, self._alarmed = self._alarmed, False
        mending = asyncio.ensure_future(self._mend(alarmed))
        try:
            done, _ = await asyncio.wait([mending], timeout=_ALARM_SECONDS if alarmed else None)
            if not done:
                self._set_state(self.open, broken=True)
            return await mending
        finally:
            mending.cancel()

    async def _mend(self, alarmed: bool) -> bool:
        trouble, broken = "", False
        found, wanted = self.open, self._wanted
        try:
            found = await self._worker.run(self._look_and_change, wanted, self._may_close)
            self._troubles.report("sets", _without_set(wanted - found))
        except RulesMissing as error:
            trouble, broken = f"the firewall is not in force, nothing is announced: {error}", True
        except _FAILURES as error:
            # What could not be looked at is as it was, unless somebody has just changed it.
            trouble, broken = f"the firewall cannot be looked at: {error}", alarmed or self.broken
            self._alarmed |= alarmed
        self._troubles.report("firewall", trouble)
        self._set_state(found, broken=broken)
        if not trouble:
            await self._keep(found)
        return not trouble

    async def _keep(self, found: frozenset[Element]) -> None:
        """Keep what is open for others who load the rules; without it they are open a moment later."""
        if found == self._kept:
            return
        trouble = ""
        try:
            await self._worker.run(write_atomically, self._ports, commands(found, _NONE).encode())
            self._kept = found
        except OSError as error:
            trouble = (
                f"{self._ports}: {error.strerror}; a reload of the firewall closes ports until we open them"
            )
        self._troubles.report("ports", trouble)

    def _set_state(self, found: frozenset[Element], *, broken: bool) -> None:
        if self._state != (found, broken):
            self._state = found, broken
            self._changed()

    def _look_and_change(self, wanted: frozenset[Element], may_close: bool) -> frozenset[Element]:
        """What is open afterwards."""
        rules = read_rules()
        if not rules or rules != self._rules:
            rules = self._load(rules)
        self._rules = rules
        sets = read_sets()
        found = _NONE.union(*sets.values())
        missing = frozenset(element for element in wanted - found if element.address.version in sets)
        surplus = (found - wanted) if may_close else _NONE
        if missing or surplus:
            change_elements(add=missing, delete=surplus)
        return (found | missing) - surplus

    def _load(self, rules: str) -> str:
        """Load the file, in which all is as it should be; the rules that are in force then."""
        if self._rules or not rules:
            log.warning("the firewall's rules are missing or changed: loading %s", self._file)
        elif not self._file.exists():
            return rules
        try:
            self._load_file()
        except Unavailable as error:
            if self._rules or not rules:
                raise RulesMissing(str(error)) from error
            # Nobody knows of anything that is wrong with those that are there.
            log.error("the firewall's rules stay as they are: %s", error)
        rules = read_rules()
        if not rules:
            raise RulesMissing(f"{self._file} makes no table inet {TABLE} with a set {SETS[4]} and rules")
        return rules

    def _load_file(self) -> None:
        try:
            _run(["--file", str(self._file)])
        except Unavailable:
            if not self._ports.exists():
                raise
            # What is wrong may be the ports, which we know anyway.
            self._ports.unlink()
            self._kept = None
            _run(["--file", str(self._file)])


def read_rules() -> str:
    """The rules and chains that are in force, as text that changes with them; empty when they are not."""
    done = _nft(["--stateless", "--terse", "--json", "list", "table", "inet", TABLE])
    if done.returncode != 0:
        if _NOT_THERE in done.stderr:
            return ""
        raise Unavailable(f"nft cannot list table inet {TABLE}: {_first_line(done.stderr)}")
    return rules_of(done.stdout)


def rules_of(listing: str) -> str:
    """The same, from the output of `nft --json list table`; handles differ from load to load."""
    found = [_without_handle(kind, item) for o in json.loads(listing)["nftables"] for kind, item in o.items()]
    kinds = {kind for kind, _ in found}
    names = {item.get("name") for kind, item in found if kind == "set"}
    if not {"chain", "rule"} <= kinds or SETS[4] not in names:
        return ""
    return json.dumps([pair for pair in found if pair[0] != "metainfo"])


def _without_handle(kind: str, item: dict[str, object]) -> tuple[str, dict[str, object]]:
    # Elements are left out by --terse, but not by every version of nft.
    return kind, {name: value for name, value in item.items() if name not in {"handle", "elem"}}


def read_elements() -> frozenset[Element]:
    """The ports that are open; Unavailable when there are no such sets."""
    return _NONE.union(*read_sets().values())


def read_sets() -> dict[int, frozenset[Element]]:
    """The ports that are open, by the family of the addresses; without IPv6 where the rules know none."""
    found = {4: frozenset(parse(_run(["--json", "list", "set", "inet", TABLE, SETS[4]])))}
    done = _nft(["--json", "list", "set", "inet", TABLE, SETS[6]])
    # In an upgrade an agent may be newer than the rules.
    if done.returncode == 0:
        found[6] = frozenset(parse(done.stdout))
    elif _NOT_THERE not in done.stderr:
        raise Unavailable(f"nft cannot list set {SETS[6]}: {_first_line(done.stderr)}")
    return found


def _without_set(closed: Collection[Element]) -> str:
    """What is wrong when these are closed after all that could be opened was."""
    if not closed:
        return ""
    return (
        f"the firewall's rules have no set {SETS[6]}: {len(closed)} ports of IPv6 addresses stay closed, and "
        "their gateways are not announced; run site.yml for this node"
    )


def change_elements(*, add: Collection[Element] = (), delete: Collection[Element] = ()) -> None:
    """Add and delete elements in one transaction."""
    _run(["--file", "-"], commands(add, delete))


def commands(add: Collection[Element], delete: Collection[Element]) -> str:
    """The script for nft."""
    lines = [
        f"{verb} element inet {TABLE} {name} {{ {', '.join(_text(e) for e in sorted(elements))} }}\n"
        for verb, all_ in (("delete", delete), ("add", add))
        for version, name in SETS.items()
        if (elements := [element for element in all_ if element.address.version == version])
    ]
    return "".join(lines)


def parse(listing: str) -> Iterator[Element]:
    """The elements in the output of `nft --json list set`."""
    for item in json.loads(listing)["nftables"]:
        for element in item.get("set", {}).get("elem", ()):
            value = element.get("elem", {}).get("val", element) if "elem" in element else element
            address, protocol, port = value["concat"]
            yield Element(ip_address(address), _PROTOCOLS.get(str(protocol), str(protocol)), int(port))


def _text(element: Element) -> str:
    return f"{element.address} . {element.protocol} . {element.port}"


def _run(arguments: list[str], script: str | None = None) -> str:
    done = _nft(arguments, script)
    if done.returncode != 0:
        raise Unavailable(f"nft {' '.join(arguments)}: {_first_line(done.stderr)}")
    return done.stdout


def _nft(arguments: list[str], script: str | None = None) -> subprocess.CompletedProcess[str]:
    pipe = subprocess.PIPE
    command = ["nft", *arguments]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        _own.append(process.pid)
        try:
            output, errors = process.communicate(script, timeout=_NFT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0] or "no message"
