# SPDX-License-Identifier: Apache-2.0
"""How long until many gateways that are made at once answer, against one that is made alone?

Needs the lab as `make demo` leaves it. `python tests/bench/gateway_burst.py [COUNT]`.
"""

from __future__ import annotations

import statistics
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from first_request import connect, create, delete, publish, read_backends
from hosts import load_lab

HOST = "burst.example.net"

# Prints, for each address, when it answered with 200 first.
ALL_FIRST_200 = """
import http.client, sys, threading, time

def ask(address, deadline):
    while time.time() < deadline:
        try:
            connection = http.client.HTTPConnection(address, 80, timeout=0.25)
            connection.request("GET", "/", headers={"Host": sys.argv[1]})
            if connection.getresponse().status == 200:
                print(address, time.time(), flush=True)
                return
        except OSError:
            pass
        time.sleep(0.1)

threads = [threading.Thread(target=ask, args=(a, time.time() + 120)) for a in sys.argv[2:]]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def main() -> None:
    """Print the first, median and last first answer, and the ratio to a gateway alone."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    api, lab = connect(), load_lab()
    backends = read_backends(api)
    alone = statistics.median(publish(api, lab, backends) for _ in range(3))
    time.sleep(5)
    uids = [str(uuid.uuid4()) for _ in range(count)]
    begin = time.time()
    with ThreadPoolExecutor(8) as pool:
        addresses = list(pool.map(lambda uid: create(connect(), uid, HOST, backends), uids))
    posted = time.time() - begin
    try:
        said = (
            lab["client"]
            .run(f"python3 - {HOST} {' '.join(addresses)}", stdin=ALL_FIRST_200, timeout=180)
            .split()
        )
    finally:
        for uid in uids:
            delete(api, uid)
    taken = sorted(float(at) - begin for at in said[1::2])
    print(
        f"{count} gateways of two instances made at once: {len(taken)} answer, all POSTed in {posted:.1f} s"
    )
    print(f"  first {taken[0]:.1f} s, median {statistics.median(taken):.1f} s, last {taken[-1]:.1f} s")
    print(f"  ratio of the last to a gateway alone ({alone:.2f} s): {taken[-1] / alone:.1f}")


if __name__ == "__main__":
    main()
