# SPDX-License-Identifier: Apache-2.0
"""What the bed's router does with single packets: where they go to, which are lost, which are counted."""

from __future__ import annotations

import json
from dataclasses import dataclass

from bed import NODES, PUBLIC, PUBLIC6, Bed
from serving import Serving

SYN, NOT_SYN = "tcp flags & (syn | ack) == syn", "tcp flags & (syn | ack) != syn"
FIN, RST, DATA = "tcp flags & fin == fin", "tcp flags & rst == rst", "tcp flags & psh == psh"
ICMP = "meta l4proto { icmp, ipv6-icmp }"
ALL = ""
EACH_TO_THE_NEXT = -1
"""Instead of a node: every packet goes to the node after that of the packet before."""
_MARK = 100
_TO = f"meta nfproto ipv4 ip daddr {PUBLIC}", f"meta nfproto ipv6 ip6 daddr {PUBLIC6}"
_FROM = f"meta nfproto ipv4 ip saddr {PUBLIC}", f"meta nfproto ipv6 ip6 saddr {PUBLIC6}"

Choice = tuple[str, int]
"""What packets to the gateway match, and the node that they go to."""


class Steering:
    """Rules on the router, before its routes; of ICMP errors that it makes itself, too."""

    def __init__(self, bed: Bed) -> None:
        self._router = bed.router
        for index in range(NODES):
            self._router.run(f"ip rule add fwmark {_MARK + index} lookup {_MARK + index}")
            self._router.run(f"ip -6 rule add fwmark {_MARK + index} lookup {_MARK + index}")
            self._router.run(
                f"ip route add default via 172.30.{index}.2 table {_MARK + index}",
                f"ip route add default via 2001:db8:30{index}::2 table {_MARK + index}",
            )
        self._router.nft(
            """table inet steer {
                 counter resets { }
                 chain steer { }
                 chain lose { }
                 chain cut { }
                 chain first { type filter hook prerouting priority mangle; jump cut; jump lose; jump steer; }
                 chain made { type route hook output priority mangle; jump steer; }
                 chain last { type filter hook postrouting priority mangle; jump cut; }
                 chain watch { type filter hook forward priority filter; }
               }"""
        )
        rules = [f"add rule inet steer watch {each} {RST} counter name resets" for each in _FROM]
        for index in range(NODES):
            rules += [f"add counter inet steer from{index}"]
            rules += [
                f"add rule inet steer watch {each} iifname n{index} counter name from{index}"
                for each in _FROM
            ]
        self._router.nft("\n".join(rules))

    def to(self, *choices: Choice) -> None:
        """The first that matches counts; what matches none is routed by its hash."""
        rules = ["flush chain inet steer steer"]
        for match, index in choices:
            mark = (
                f"numgen inc mod {NODES} offset {_MARK}" if index == EACH_TO_THE_NEXT else str(_MARK + index)
            )
            rules += [f"add rule inet steer steer {each} {match} meta mark set {mark} accept" for each in _TO]
        self._router.nft("\n".join(rules))

    def lose(self, *matches: str, times: int = 1) -> None:
        """Of the gateway's packets that match, the first ones; without any: lose nothing."""
        rules = ["flush chain inet steer lose"]
        for match in matches:
            # A quota in packets is a limit whose bucket is never filled again.
            limit = f"limit rate 1/day burst {times} packets"
            rules += [f"add rule inet steer lose {each} {match} {limit} drop" for each in _FROM]
        self._router.nft("\n".join(rules))

    def cut(self, *nodes: int) -> None:
        """No packet from or to these nodes passes."""
        rules = ["flush chain inet steer cut"]
        for index in nodes:
            rules += [f"add rule inet steer cut {way} n{index} drop" for way in ("iifname", "oifname")]
        self._router.nft("\n".join(rules))

    def clear(self) -> None:
        """By their hash, all."""
        self.to()
        self.lose()
        self.cut()

    @property
    def resets(self) -> int:
        """RSTs that the gateway sent."""
        return self._counted("resets")

    def sent_by(self, node: int) -> int:
        """The gateway's packets to clients that came from that node."""
        return self._counted(f"from{node}")

    def _counted(self, name: str) -> int:
        found = json.loads(self._router.run(f"nft -j list counter inet steer {name}"))
        return int(next(each["counter"]["packets"] for each in found["nftables"] if "counter" in each))


@dataclass(frozen=True)
class Site:
    """The bed, what runs in it, and how its router steers."""

    bed: Bed
    serving: Serving
    steering: Steering
