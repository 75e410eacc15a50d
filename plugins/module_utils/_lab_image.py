# SPDX-License-Identifier: Apache-2.0
"""The lab's base image: a Debian tree made once from a recipe and kept under the recipe's hash."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.epic.gateway.plugins.module_utils._lab_shell import PATH, LabError

# Part of the hash; the packages' archive, not this date, decides what is installed.
_EPOCH = "1735689600"
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True)
class Recipe:
    """What the image is made of."""

    suite: str
    packages: tuple[str, ...]
    customize: str

    @property
    def digest(self) -> str:
        text = "\0".join((self.suite, *self.packages, self.customize, *_EXCLUDED, _EPOCH))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def command(self, tree: Path, script: Path) -> list[str]:
        """The mmdebstrap call that makes `tree`."""
        return [
            "mmdebstrap", "--variant=minbase", "--format=directory", f"--include={','.join(self.packages)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
            f"--customize-hook={script}", self.suite, str(tree),
        ]  # fmt: skip


def recipe(suite: str, packages: Iterable[str], customize: str) -> Recipe:
    """A recipe that does not depend on the order in which packages were named."""
    return Recipe(suite, tuple(sorted(set(packages))), customize)


def image_path(cache: Path, wanted: Recipe) -> Path:
    """Where the recipe's image is, or will be."""
    return cache / f"image-{wanted.digest}"


def build(cache: Path, wanted: Recipe) -> Path:
    """Make the image unless it is there. A build cut short leaves nothing that counts as an image."""
    done = image_path(cache, wanted)
    if done.is_dir():
        return done
    part, script, log = done.with_suffix(".part"), done.with_suffix(".sh"), cache / "image.log"
    shutil.rmtree(part, ignore_errors=True)
    script.write_text(wanted.customize, encoding="utf-8")
    script.chmod(0o755)
    status = _run(wanted.command(part, script), log)
    script.unlink()
    if status != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
        raise LabError(f"mmdebstrap ended with status {status}; the end of its log {log}:\n{tail}")
    part.rename(done)
    return done


def _run(command: list[str], log: Path) -> int:
    passed = {key: os.environ[key] for key in ("http_proxy", "https_proxy", "no_proxy") if key in os.environ}
    environment = {"PATH": PATH, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": _EPOCH, **passed}
    with log.open("w", encoding="utf-8") as stream:
        try:
            result = subprocess.run(command, env=environment, stdout=stream, stderr=stream, check=False)
        except FileNotFoundError:
            raise LabError("mmdebstrap is not installed; tools/setup --lab installs it") from None
    return result.returncode
