# SPDX-License-Identifier: Apache-2.0
"""Which of a slice's ports serves a port of its Service.

A slice holds target ports, while a backendRef names a port of the Service. A port whose name is a number in
digits serves that port of the Service, for so the mirror of a Linux host names them. Of others that serves
whose own number it is, or the only one that there is: no port is ever taken for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from epic.model.gatewayapi import EndpointPort


class TargetPorts:
    """The TCP ports of a slice: many backendRefs may ask for one of many."""

    def __init__(self, ports: Sequence[EndpointPort]) -> None:
        self._by_name: dict[str, int] = {}
        self._numbers: set[int] = set()
        for port in ports:
            if port.protocol == "TCP" and port.port is not None:
                if port.name and port.name.isdecimal():
                    self._by_name.setdefault(port.name, port.port)
                else:
                    self._numbers.add(port.port)
        self._only = next(iter(self._numbers)) if len(self._numbers) == 1 and not self._by_name else None

    def __len__(self) -> int:
        return len(self._by_name) + len(self._numbers)

    @property
    def named(self) -> frozenset[int | str]:
        """Which ports of the Service it has: its own numbers, and in digits those that are names."""
        return frozenset[int | str](self._numbers) | frozenset(self._by_name)

    @property
    def serves_any(self) -> bool:
        """Whether there is one only, so that it serves whatever port of the Service is asked for."""
        return self._only is not None

    def serving(self, wanted: int | None) -> int | None:
        """Which one serves a backendRef's port; None: none of them does."""
        if wanted is None:
            every = self._numbers | set(self._by_name.values())
            return every.pop() if len(every) == 1 else None
        if (named := self._by_name.get(str(wanted))) is not None:
            return named
        return wanted if wanted in self._numbers else self._only


class ServicePorts:
    """The ports of all slices of a Service: to ask for one costs the same however many slices there are."""

    def __init__(self, slices: Iterable[TargetPorts]) -> None:
        known = [ports for ports in slices if ports]
        # While no slice has any port nobody can tell.
        self.lacks_none = not known or any(ports.serves_any for ports in known)
        doubtful = () if self.lacks_none else known
        self._named = frozenset[int | str]().union(*(ports.named for ports in doubtful))
        self._serves_unasked = any(ports.serving(None) is not None for ports in doubtful)

    def lacks(self, port: int | None) -> bool:
        """Whether no slice serves this port of the Service, though some have ports."""
        if self.lacks_none:
            return False
        if port is None:
            return not self._serves_unasked
        return port not in self._named and str(port) not in self._named
