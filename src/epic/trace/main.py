"""The command `epic-trace`."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections import Counter

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


def _run(options: filters.Options) -> None:
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _: stop.append(caught))
    counted: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    reasons = btf.kernel().enumerators("skb_drop_reason")
    clock = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    show = output.as_json if options.output == "json" else output.as_text

    def on_event(data: bytes) -> None:
        for step in events.steps(data, reasons):
            if options.filters.drops and not step.reason:
                continue
            if options.count is not None and counted.total() + dropped.total() >= options.count:
                stop.append(0)
                return
            (dropped if step.reason else counted)[step.reason or step.step] += 1
            print(show(step, clock), flush=True)

    flags = [*options.filters.definitions(), f"-DRATE={options.rate}"]
    tracer = kernel.Tracer(flags, options.pins, on_event)
    try:
        print(f"epic-trace: tracing on {socket.gethostname()}, Ctrl-C ends", file=sys.stderr, flush=True)
        end = time.monotonic() + options.duration if options.duration else None
        while not stop and (end is None or time.monotonic() < end):
            tracer.poll(0.1)
            if options.count is not None and counted.total() + dropped.total() >= options.count:
                break
    finally:
        lost = tracer.lost()
        tracer.close()
        print(output.summary(counted, dropped, lost), file=sys.stderr)


if __name__ == "__main__":
    main()
