"""Options that many commands share, and the desk that two of them name."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path

import click

from aggregator.admin.folder import FederationFolder
from aggregator.admin.server_certificate import ServerCertificate
from aggregator.desk.desk import Desk

DESK_KEY = "aggregator.desk"
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
NEW_FILE = click.Path(path_type=Path, dir_okay=False)
dir_option = click.option(
    "--dir",
    "root",
    envvar="CAIRN_FEDERATION",
    default=".",
    show_default=True,
    type=FOLDER,
    help="The federation's folder.",
)
desk_option = click.option(
    "--desk",
    "credential",
    envvar="CAIRN_DESK",
    type=NEW_FILE,
    help="A coordinator's credential: ask the federation on another machine instead.",
)
run_argument = click.argument("name", required=False, default="", metavar="[RUN]")


def warn_of(certificate: ServerCertificate | None) -> None:
    """Say that the aggregator's own certificate ends soon, if it does."""
    if certificate is not None and certificate.warning:
        click.echo(certificate.warning, err=True)


def with_desk(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--dir`` and ``--desk``, and pass it the desk that they name."""

    def asking(
        context: click.Context, /, *, root: Path, credential: Path | None, **words: object
    ) -> None:
        command(_desk(context, root, credential), **words)

    # Afterwards: the wrapped command's own options come along, and these are added to them.
    return dir_option(desk_option(update_wrapper(click.pass_context(asking), command)))


def desk_if_named(context: click.Context, root: Path, credential: Path | None) -> Desk | None:
    """Find the desk that ``--dir``, ``--desk`` or their variables name; None when nothing does.

    Raises:
        InputDataError: the folder that is named is no federation's.
    """
    typed = click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT
    named = context.get_parameter_source("root") in typed
    if named:
        FederationFolder(root).settings()
    if named or credential is not None or DESK_KEY in context.find_root().meta:
        return _desk(context, root, credential)
    return None


def _desk(context: click.Context, root: Path, credential: Path | None) -> Desk:
    """``--desk`` of the command or before it; else the folder."""
    before = context.find_root().meta.get(DESK_KEY)
    chosen = credential or before
    if chosen is not None:
        source = context.get_parameter_source("root")
        if source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("give --dir or --desk, not both")
        from aggregator.desk.remote import RemoteDesk

        return RemoteDesk.from_file(Path(chosen))
    from aggregator.desk.local import LocalDesk

    return LocalDesk(FederationFolder(root))
