# SPDX-License-Identifier: Apache-2.0
"""Debian's kernels, unpacked in the cache; nothing is installed and the machine's apt is left as it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_APT = """
Dir::Etc::SourceList "{directory}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "{directory}/lists";
Dir::Cache "{directory}/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
"""
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SECURITY = "bookworm-security"
"""The suite that shows where this machine has Debian's security archive from, with all suites' kernels."""


@dataclass(frozen=True)
class Source:
    """Where Debian keeps its newest kernel of a series: a package that only names it."""

    suite: str
    package: str


SOURCES = {
    "5.10": Source("bullseye-security", "linux-image-amd64"),
    "6.1": Source("bookworm-security", "linux-image-amd64"),
    "6.12": Source("bookworm-security", "linux-image-6.12-amd64"),
}


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel."""

    release: str
    package: str
    image: Path
    modules: Path


def kernel(series: str, cache: Path) -> Kernel:
    """The kernel of a series, downloaded unless it is there."""
    directory = cache / series
    if not (directory / "complete").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        _download(SOURCES[series], directory)
    (image,) = (directory / "root/boot").glob("vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    package = (directory / "complete").read_text("utf-8").strip()
    return Kernel(release, package, image, directory / "root/lib/modules")


def _download(source: Source, directory: Path) -> None:
    apt = directory / "apt"
    (apt / "lists/partial").mkdir(parents=True)
    (apt / "cache/archives/partial").mkdir(parents=True)
    (apt / "sources.list").write_text(
        f"deb [arch=amd64 target=Packages signed-by={_KEYS}] {_mirror()} {source.suite} main\n", "utf-8"
    )
    (apt / "apt.conf").write_text(_APT.format(directory=apt), "utf-8")
    _apt(apt, "apt-get", "-q", "update")
    named = re.search(
        r"^ *Depends: (linux-image-\S+)", _apt(apt, "apt-cache", "depends", source.package), re.MULTILINE
    )
    if not named:
        raise LookupError(f"{source.package} of {source.suite} names no kernel")
    _apt(apt, "apt-get", "-q", "download", named[1], directory=directory)
    (archive,) = directory.glob("linux-image-*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, directory / "root"], check=True)
    (modules,) = (directory / "root/lib/modules").iterdir()
    subprocess.run(["depmod", "-b", directory / "root", modules.name], check=True)
    version = archive.name.removesuffix("_amd64.deb").split("_", 1)[1]
    archive.unlink()
    shutil.rmtree(apt)
    (directory / "complete").write_text(version, "utf-8")


def _mirror() -> str:
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {_SECURITY}"]
    done = subprocess.run(query, capture_output=True, text=True, check=True)
    if not done.stdout:
        raise LookupError(f"apt knows no {_SECURITY}; add it to its sources and `apt-get update`")
    return done.stdout.split()[0]


def _apt(configuration: Path, *command: str, directory: Path | None = None) -> str:
    environment = os.environ | {"APT_CONFIG": str(configuration / "apt.conf"), "LC_ALL": "C"}
    done = subprocess.run(
        command, env=environment, cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
