# SPDX-License-Identifier: Apache-2.0
"""The lab's base image and layers over it, each made once and kept under the hash of what it is made of."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable
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
    offered: tuple[str, ...]
    customize: str

    @property
    def digest(self) -> str:
        return _digest(self.suite, *self.packages, "", *self.offered, self.customize, *_EXCLUDED, _EPOCH)

    def command(self, tree: Path, script: Path) -> list[str]:
        """The mmdebstrap call that makes `tree`."""
        return [
            "mmdebstrap", "--variant=minbase", "--format=directory", f"--include={','.join(self.packages)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
            f'--customize-hook={shlex.quote(str(script))} "$1" {shlex.join(self.offered)}',
            self.suite, str(tree),
        ]  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """Packages over an image, installed from the repository in it."""

    image: str
    packages: tuple[str, ...]
    install: str

    @property
    def digest(self) -> str:
        return _digest(self.image, *self.packages, self.install)


def recipe(suite: str, packages: Iterable[str], offered: Iterable[str], customize: str) -> Recipe:
    """A recipe that does not depend on the order in which packages were named."""
    return Recipe(suite, tuple(sorted(set(packages))), tuple(sorted(set(offered))), customize)


def image_path(cache: Path, wanted: Recipe) -> Path:
    """Where the recipe's image is, or will be."""
    return cache / f"image-{wanted.digest}"


def layer_path(cache: Path, wanted: Layer) -> Path:
    """Where the layer is, or will be."""
    return cache / f"layer-{wanted.digest}"


def build(cache: Path, wanted: Recipe) -> Path:
    """Make the image unless it is there. A build cut short leaves nothing that counts as an image."""
    return _build(cache, image_path(cache, wanted), wanted.customize, wanted.command)


def build_layer(cache: Path, wanted: Layer) -> Path:
    """Make the layer over its image, which must be in the same directory, unless it is there."""
    done = layer_path(cache, wanted)

    def command(tree: Path, script: Path) -> list[str]:
        places = [str(cache / wanted.image), str(tree), str(scratch)]
        unshare = ["unshare", "--mount", "--net", "--pid", "--fork"]
        return [*unshare, str(script), *places, *wanted.packages]

    scratch = done.with_suffix(".scratch")
    try:
        return _build(cache, done, wanted.install, command)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _build(cache: Path, done: Path, text: str, command: Callable[[Path, Path], list[str]]) -> Path:
    if done.is_dir():
        return done
    part, script, log = done.with_suffix(".part"), done.with_suffix(".sh"), cache / "image.log"
    shutil.rmtree(part, ignore_errors=True)
    script.write_text(text, encoding="utf-8")
    script.chmod(0o755)
    status = _run(command(part, script), log)
    script.unlink()
    if status != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
        raise LabError(f"{done.name} was not built: status {status}; the end of the log {log}:\n{tail}")
    part.rename(done)
    return done


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def _run(command: list[str], log: Path) -> int:
    passed = {key: os.environ[key] for key in ("http_proxy", "https_proxy", "no_proxy") if key in os.environ}
    environment = {"PATH": PATH, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": _EPOCH, **passed}
    with log.open("w", encoding="utf-8") as stream:
        try:
            result = subprocess.run(command, env=environment, stdout=stream, stderr=stream, check=False)
        except FileNotFoundError:
            raise LabError(f"{command[0]} is not installed; tools/setup --lab installs it") from None
    return result.returncode
