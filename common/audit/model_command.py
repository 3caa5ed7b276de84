"""``cairn-audit model``: where a model comes from, verified offline."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.audit.load import Key, audit
from common.audit.model import check_ledger, unchecked_sites
from common.cli import counted, echo_json, json_option, shown
from common.crypto.identity import PublicKey, read_public_key
from common.errors import ExitCode, InputDataError
from common.released.checking import Check, check_folder
from common.released.folder import KEY_FILE, ModelFolder, open_folder

_PATH = click.Path(path_type=Path)
_MARKS = {True: ("ok", "green"), False: ("BAD", "red"), None: ("not seen", "yellow")}
_PLAIN_WIDTH = 200  # into a file or a pipe: do not fold what somebody wants to search
_CAVEAT = (
    "taken from the model's own folder: this proves that the folder agrees with itself. "
    "Give the aggregator's key with --witness, or a site's ledger with --ledger"
)


@click.command()
@click.argument("folder", type=_PATH)
@click.option(
    "--ledger",
    "ledgers",
    type=_PATH,
    multiple=True,
    metavar="DIR",
    help="The ledger of a site that the model names, or a copy; may be repeated.",
)
@click.option(
    "--key",
    "keys",
    type=_PATH,
    multiple=True,
    metavar="FILE",
    help="The sites' public keys, one for each --ledger in their order; default: those in them.",
)
@click.option(
    "--witness",
    type=_PATH,
    metavar="FILE",
    help="The aggregator's key. Without it FOLDER/witness.pub is used, which proves only that "
    "the folder agrees with itself.",
)
@json_option
@click.pass_context
def model(
    ctx: click.Context,
    folder: Path,
    ledgers: tuple[Path, ...],
    keys: tuple[Path, ...],
    witness: Path | None,
    as_json: bool,
) -> None:
    """Verify a model's folder: who signed it, and that it is what its sites came to.

    Looks, by name, at the signature; at every file's digest; at the weights; that the settings
    in checkpoint.json and the card are those of the plan and the provenance; at rounds, sites
    and the chain of sums. Where the folder holds the sums (`cairn-aggregator model --sums`),
    the weights are computed again from the plan's seed, or the start model, and compared bit
    for bit. With a site's ledger: that the site answered those rounds under that plan, that
    the signed orders in its archive name the same sums, and that its own last report names
    the same weights.

    \b
    cairn-audit model model --witness witness.pub
    cairn-audit model model --ledger site-a/ledger --ledger site-b/ledger --json

    \b
    --json: {"passed": true, "run": ..., "plan": ..., "weights": ..., "key": ...,
             "checks": [{"name": "signature", "holds": true, "says": "..."}, ...]}
             "holds" is null where something could not be looked at.

    Exit codes: 0 nothing disagrees; 2 usage; 4 something does not hold, by name; 6 a file
    cannot be read, or this is no model's folder.
    """  # noqa: D301 - the backspace tells click to keep the lines as they are
    if keys and len(keys) != len(ledgers):
        raise click.UsageError("--key is given once for each --ledger, in their order")
    opened = open_folder(folder)
    key = _key(opened, witness)
    checked = check_folder(opened, key.public)
    key_files = keys or (None,) * len(ledgers)
    audited = [
        audit(place, key_file=key_file, witness_file=None)
        for place, key_file in zip(ledgers, key_files, strict=True)
    ]
    origin = checked.provenance
    checks = [
        *checked.checks,
        *(check for each in audited for check in check_ledger(each, origin, key.public)),
        *unchecked_sites(origin, audited),
    ]
    bad = [check.name for check in checks if check.holds is False]
    if as_json:
        echo_json(
            {
                "passed": not bad,
                "broken": bad,
                "folder": str(folder),
                "run": origin.run,
                "verdict": origin.verdict,
                "plan": origin.plan,
                "weights": origin.weights,
                "key": key.as_dict(),
                "checks": [check.as_dict() for check in checks],
            }
        )
    else:
        _print(folder, key, checks, bad)
    if bad:
        ctx.exit(ExitCode.VERIFICATION_FAILED)


def _key(folder: ModelFolder, witness: Path | None) -> Key:
    if witness is not None:
        return Key(read_public_key(witness), from_ledger=False)
    data = folder.read(KEY_FILE)
    if data is None:
        raise InputDataError(
            "no key to verify the model with",
            field=str(folder.root / KEY_FILE),
            expected="the aggregator's public key",
            got="no file",
            advice="Give it with --witness FILE",
        )
    return Key(PublicKey.parse(data.decode("ascii", "replace")), from_ledger=True)


def _print(folder: Path, key: Key, checks: list[Check], bad: list[str]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        word, colour = _MARKS[check.holds]
        table.add_row(Text(word, style=colour), Text(shown(check.name)), Text(shown(check.says)))
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(file=sys.stdout, width=width, highlight=False).print(table)
    origin = _CAVEAT if key.from_ledger else "given by you"
    click.echo(f"key {key.public.fingerprint} ({origin})")
    unseen = sum(check.holds is None for check in checks)
    verdict = f"DOES NOT HOLD: {', '.join(bad)}" if bad else "nothing disagrees"
    click.echo(f"{folder}: {verdict}; {counted(unseen, 'thing')} could not be looked at")
