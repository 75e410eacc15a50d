"""A second run of the playbook changes nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import CHECKOUT, INVENTORY

RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@pytest.mark.parametrize("options", [(), ("--check",)], ids=["run", "check"])
def test_site_yml_on_a_converged_lab_changes_nothing(options: tuple[str, ...]) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(INVENTORY), "site.yml", *options],
        cwd=CHECKOUT,
        env=os.environ | {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    recap = RECAP.findall(done.stdout)
    assert recap, done.stdout[-3000:] + done.stderr[-2000:]
    changed = [line for line in recap if line[1:] != ("0", "0", "0")]
    assert not changed, done.stdout[-6000:]
