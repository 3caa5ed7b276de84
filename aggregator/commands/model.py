"""The model that a run came to, as a folder to use, to give away and to verify."""

from __future__ import annotations

from pathlib import Path

import click

from aggregator.commands.options import FOLDER, with_desk
from aggregator.desk.desk import Desk
from common.cli import echo_json, json_option, shown
from common.crypto.identity import PublicKey
from common.errors import VerificationError
from common.released.checking import Checked, check_folder
from common.released.folder import KEY_FILE, check_new, new_folder

LATEST = "latest"


@click.command()
@click.argument("name", metavar="RUN")
@with_desk
@click.option("-o", "--output", required=True, type=FOLDER, help="Folder to make, new or empty.")
@click.option(
    "--sums",
    is_flag=True,
    help="With the sums of every round: anyone can compute the weights again from them.",
)
@json_option
def model(desk: Desk, name: str, output: Path, *, sums: bool, as_json: bool) -> None:
    """Write the model that RUN (or: latest) came to as a folder.

    \b
      cairn-aggregator model latest -o model --dir fed
      cairn-site play --checkpoint model scan.nii.gz -o found    opens in 3D Slicer
      cairn-site evaluate --checkpoint model --data images/
      cairn-audit model model --witness witness.pub --ledger site-a/ledger

    The folder holds weights (safetensors) and settings as `cairn-site train` writes them, a
    card for people (card.md) that says what it looks for, what it was made of, how good it
    is and what it is not for, the plan, and where it comes from (provenance.json): the sites
    and the sum of every round, signed with the key that signs the orders.

    Of a run that COMPLETED, or that was DEGRADED, which the card says. It names sites, with
    their numbers of images; no error of a single site. What is written is verified first.

    Exit codes: 0 written; 2 something is there already; 3 the run has no model; 4 what came
    does not verify; 5 the desk is unreachable; 6 the run's files cannot be read.
    """  # noqa: D301 - \b is click's, and must not be an escape
    check_new(output)
    pieces = desk.model("" if name == LATEST else name, sums=sums)
    with new_folder(output, pieces) as folder:
        key = PublicKey.parse((folder.read(KEY_FILE) or b"").decode("ascii", "replace"))
        checked = check_folder(folder, key)
        for broken in checked.broken:
            raise VerificationError(
                "the model does not verify; nothing was written",
                field=broken.name,
                got=broken.says,
            )
        files = sorted(
            path.relative_to(folder.root).as_posix()
            for path in folder.root.rglob("*")
            if path.is_file()
        )
    if as_json:
        echo_json({"model": str(output), "files": files, **_told(checked)})
        return
    said = _told(checked)
    click.echo(f"Wrote {output}: {shown(str(said['run']))}, {said['verdict']}")
    click.echo(f"weights {said['weights']}")
    click.echo(f"Read {output / 'card.md'}. Mark a scan:")
    click.echo(f"cairn-site play --checkpoint {output} scan.nii.gz -o found")


def _told(checked: Checked) -> dict[str, object]:
    origin = checked.provenance
    names = ("run", "verdict", "finished", "plan", "weights", "start")
    return {name: getattr(origin, name) for name in names}
