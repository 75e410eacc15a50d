# SPDX-License-Identifier: Apache-2.0
"""`epicctl backup` and `epicctl restore`: on a control host, straight from and into the store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from pydantic import ValidationError

from epic.cli.printing.output import console
from epic.errors import Invalid

if TYPE_CHECKING:
    from epic.store.backup import BackupSummary
    from epic.store.location import StoreLocation

File = Annotated[Path, typer.Argument(help="The file of the backup.")]
Database = Annotated[Path | None, typer.Option("--database", help="The file of the embedded store.")]
Etcd = Annotated[
    Path | None,
    typer.Option(
        "--etcd", help="A YAML file that says how to reach etcd: endpoints, authority, certificate, key."
    ),
]
_CONTROL = Path("/etc/epic/control.yaml")
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def backup(file: File, database: Database = None, etcd: Etcd = None) -> None:
    """Write all objects of the store into a file, while it is used (on a control host, as root).

    Without an option it is the store that the host's control.yaml names.
    The file holds secrets; only its owner can read it. It fits every kind of store.
    """
    summary = asyncio.run(_back_up(_location(database, etcd), file))
    console.print(f"{file}: {summary.objects} objects as of revision {summary.revision}", markup=False)


def restore(file: File, database: Database = None, etcd: Etcd = None, yes: Yes = False) -> None:
    """Make a backup the whole content of the store (on a control host, as root; stop epic-control first).

    Without an option it is the store that the host's control.yaml names. The embedded store's file that was
    there is kept beside the new one, as FILE.replaced.
    """
    from epic.store.backup import check_backup  # noqa: PLC0415
    from epic.store.location import restore_backup  # noqa: PLC0415

    location = _location(database, etcd)
    found = check_backup(file)
    if not yes:
        what = f"{found.objects} objects of {found.created}"
        typer.confirm(f"Replace everything in {location.title} by {what}?", abort=True)
    summary = asyncio.run(restore_backup(location, file))
    console.print(f"{location.title}: {summary.objects} objects restored", markup=False)


async def _back_up(location: StoreLocation, file: Path) -> BackupSummary:
    from epic.store.backup import write_backup  # noqa: PLC0415
    from epic.store.location import open_engine  # noqa: PLC0415

    if location.sqlite is not None and not location.sqlite.exists():
        raise Invalid(f"{location.sqlite}: no such file")
    engine = await open_engine(location)
    try:
        return await write_backup(engine, file)
    finally:
        await engine.close()


def _location(database: Path | None, etcd: Path | None) -> StoreLocation:
    # Only these commands need an engine; importing one takes longer than all of the others do.
    from epic.store.location import StoreLocation  # noqa: PLC0415

    if database is not None and etcd is not None:
        raise Invalid("expected either --database or --etcd")
    if database is not None:
        return StoreLocation(sqlite=database)
    file = etcd or _CONTROL
    try:
        content = yaml.safe_load(file.read_text())
        return StoreLocation.model_validate({"etcd": content} if etcd else content["store"])
    except (OSError, yaml.YAMLError, ValidationError, KeyError, TypeError) as error:
        raise Invalid(f"{file}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    match error:
        case OSError():
            return f"{error.strerror}; say --database or --etcd"
        case KeyError() | TypeError():
            return "expected the key store"
        case _:
            return str(error)
