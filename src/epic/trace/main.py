# SPDX-License-Identifier: Apache-2.0
"""The command `epic-trace`."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable

from epic.errors import EpicError
from epic.trace import btf, events, filters, kernel, output


def main() -> None:
    """Trace until the end of time, of the count, or Ctrl-C."""
    options = filters.parse(sys.argv[1:])
    try:
        kernel.require_root()
        _run(options)
    except EpicError as error:
        sys.exit(f"epic-trace: {error}")
    except BrokenPipeError:  # `epic-trace | head`: nobody is left to read
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Printer:
    """Lines, and how many of them there were."""

    def __init__(self, options: filters.Options, show: Callable[[events.Step], str]) -> None:
        self._only_drops, self._most, self._show = options.filters.drops, options.count, show
        self.counted: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    @property
    def full(self) -> bool:
        """Whether as many lines as wanted are there."""
        return self._most is not None and self.counted.total() + self.dropped.total() >= self._most

    def add(self, steps: list[events.Step]) -> None:
        """Show what is wanted of them."""
        for step in steps:
            if self.full or (self._only_drops and not step.reason):
                continue
            (self.dropped if step.reason else self.counted)[step.reason or step.step] += 1
            print(self._show(step), flush=True)


def _shower(options: filters.Options) -> Callable[[events.Step], str]:
    clock = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    node = socket.gethostname()
    if options.output == "json":
        return lambda step: output.as_json(step, clock, node)
    if output.wants_colour(sys.stdout.isatty(), os.environ):
        return lambda step: output.coloured(step, output.as_text(step, clock))
    return lambda step: output.as_text(step, clock)


def _run(options: filters.Options) -> None:
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _: stop.append(caught))
    reasons = kernel.drop_reasons(btf.kernel())
    printer = _Printer(options, _shower(options))
    tracer = kernel.Tracer([*options.filters.definitions(), f"-DRATE={options.rate}"], options.pins)
    lost = (0, 0)
    try:
        print(f"epic-trace: tracing on {socket.gethostname()}, Ctrl-C ends", file=sys.stderr, flush=True)
        if not reasons:
            print("epic-trace: this kernel does not tell why it drops (Linux 5.17 does)", file=sys.stderr)
        end = time.monotonic() + (options.duration or float("inf"))
        ended = False
        while not ended:
            ended = bool(stop) or printer.full or time.monotonic() >= end
            for data in tracer.poll(0 if ended else 0.1):  # at the end what is still there
                printer.add(events.steps(data, reasons))
        lost = tracer.lost()
    finally:
        tracer.close()
        print(output.summary(printer.counted, printer.dropped, lost), file=sys.stderr)


if __name__ == "__main__":
    main()
