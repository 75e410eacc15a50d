# SPDX-License-Identifier: Apache-2.0
"""How long does `site.yml` take, on hosts that were just booted and again?

Boots the lab anew, so what was on it is gone. The first run is given as a ratio to the second.
"""

from __future__ import annotations

import os
import subprocess
import time

from first_request import CHECKOUT, INVENTORY


def _timed(*command: str) -> float:
    begin = time.monotonic()
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        env=os.environ | {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return time.monotonic() - begin


def main() -> None:
    """Print the times and their ratio."""
    _timed("ansible-playbook", "-i", "localhost,", "playbooks/lab_clean.yml")
    boot = _timed("ansible-playbook", "-i", str(INVENTORY), "playbooks/lab.yml")
    first = _timed("ansible-playbook", "-i", str(INVENTORY), "site.yml")
    second = _timed("ansible-playbook", "-i", str(INVENTORY), "site.yml")
    print(f"lab.yml, image built before: {boot:.1f} s")
    print(f"site.yml on freshly booted hosts: {first:.1f} s")
    print(f"site.yml again: {second:.1f} s; ratio first/second {first / second:.1f}")


if __name__ == "__main__":
    main()
