"""The ``cairn-witness`` command: be a third witness of sites' ledgers.

Whoever runs it should be neither a site's hospital nor the aggregator: another
department, another university, a data protection office.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from common.cli import complete, echo_json, json_option, run
from common.crypto.files import read_public, write_public
from common.errors import UnreachableError, UsageError, VerificationError
from common.extras import require_extra
from common.ledger.notes import parse_note
from common.waking import stop_on_signals
from common.witness.judging import LogJudge, check_memory
from common.witness.keys import WitnessFolder
from common.witness.policy import algorithm_name, read_policy
from common.witness.policy_text import read_text
from common.witness.rotation import follow_rotation
from common.witness.store import Store, evidence_of, origin_digest, read_note
from common.witness.vkeys import parse_log_key, vkey_text
from common.witness.wire import Answer

_PATH = click.Path(path_type=Path)
_DIR = click.option(
    "--dir", "root", type=_PATH, required=True, metavar="DIR", help="The witness's folder."
)
DEFAULT_PORT = 9095


@click.group("cairn-witness")
def cli() -> None:
    """Cosign ledgers that only grow, so that site and aggregator together cannot lie.

    \b
    Once:
      cairn-witness keygen witness.example.org/w1 --dir w1   makes the keys
      cairn-witness add-log VKEY --dir w1     a site's key: its `cairn-site witnesses` says it
      cairn-witness show --dir w1             the lines that sites and auditors need
    Then:
      cairn-witness serve --dir w1 --host 0.0.0.0 --certificate w1.crt --key w1.key

    A witness sees sizes and digests of ledgers, never a record or an image. It speaks
    C2SP tlog-witness, and serves any log that does.

    Exit codes: 0 fine; 2 usage; 4 its memory or a signature does not hold; 5 nobody
    answers; 6 a file cannot be used.
    """  # noqa: D301 - \b is click's, and must not be an escape


@cli.command()
@click.argument("name")
@_DIR
@json_option
def keygen(name: str, root: Path, *, as_json: bool) -> None:
    """Make a witness's folder with its first keys, under NAME.

    NAME says who it is, like an address without its scheme: witness.example.org/w1.
    It stands in every cosignature and cannot be changed.
    """
    folder = WitnessFolder.create(root, name)
    _print_keys(folder, as_json=as_json)


@cli.command("add-log")
@click.argument("vkey")
@_DIR
@json_option
def add_log(vkey: str, root: Path, *, as_json: bool) -> None:
    """Serve one more log, by its verifier key.

    Compare the key with the site by telephone. A witness that runs knows the log after
    its next start.
    """
    folder = WitnessFolder(root)
    key, added = parse_log_key(vkey), folder.add_log(parse_log_key(vkey))
    if as_json:
        echo_json({"log": key.name, "added": added})
    else:
        click.echo(f"{key.name}: {'added' if added else 'was served already'}")


@cli.command()
@_DIR
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65_535), default=DEFAULT_PORT, show_default=True)
@click.option("--certificate", type=_PATH, help="TLS: PEM of this server's certificate.")
@click.option("--key", type=_PATH, help="TLS: PEM of its key.")
@click.option(
    "--plain", is_flag=True, help="No TLS beyond this machine: a proxy in front of it has it."
)
@json_option
def serve(
    root: Path,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    *,
    plain: bool,
    as_json: bool,
) -> None:
    """Answer logs and auditors until told to stop.

    What was cosigned is on the disk before the cosignature leaves. Keep the folder on
    one disk, never run a copy of it, and never restore an older one: a witness that
    forgets can be led to cosign two histories.
    """
    require_extra("witness")
    from common.witness.server import Address, WitnessServer

    if (certificate is None) != (key is None):
        raise UsageError("--certificate and --key go together")
    if host not in ("127.0.0.1", "::1", "localhost") and certificate is None and not plain:
        raise UsageError(
            "beyond this machine a witness speaks TLS",
            expected="--certificate and --key, or --plain behind a proxy",
            got="neither",
        )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    folder, stop = WitnessFolder(root), stop_on_signals()
    name, generations, logs = folder.name, folder.generations(), folder.logs()
    public_keys = [public for generation in generations for public in generation.public(name)]
    signers = [signer for generation in generations for signer in generation.signers]
    with Store(folder.state) as store:
        check_memory(store, logs, public_keys)
        judge = LogJudge(name, signers, logs, store, lambda: datetime.now(UTC))
        with WitnessServer(judge, Address(host, port, certificate, key)) as server:
            if as_json:
                echo_json({"name": name, "host": host, "port": server.port, "logs": list(logs)})
            else:
                click.echo(f"{name} witnesses {len(logs)} logs at {host}:{server.port}")
            server.serve(stop)


@cli.command()
@_DIR
@json_option
def show(root: Path, *, as_json: bool) -> None:
    """Show the keys, the logs, what was cosigned last, and what was refused as a fork.

    The witness lines are what sites and auditors write into their policy files, with the
    address added: https://w1.example.org
    """
    _print_keys(WitnessFolder(root), as_json=as_json)


@cli.command()
@_DIR
@json_option
def rotate(root: Path, *, as_json: bool) -> None:
    """Make new keys, which the old ones sign; after the next start both cosign.

    Give the rotation note to everybody who has the old keys in a policy file; they run
    `cairn-witness follow`. When all have, retire the old keys.
    """
    folder = WitnessFolder(root)
    new, _ = folder.rotate()
    path = folder.root / "rotations" / f"{new.number}.note"
    lines = [vkey_text(key) for key in new.public(folder.name)]
    if as_json:
        echo_json({"generation": new.number, "rotation": str(path), "vkeys": lines})
    else:
        click.echo(f"generation {new.number}; for sites and auditors: {path}")


@cli.command()
@_DIR
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def retire(root: Path, *, yes: bool, as_json: bool) -> None:
    """Remove the secret halves of all keys but the newest; they cannot be had back."""
    folder = WitnessFolder(root)
    if not yes and not as_json:
        click.confirm("Has everybody followed the rotation?", abort=True)
    numbers = list(folder.retire())
    if as_json:
        echo_json({"retired": numbers})
    else:
        click.echo(f"retired: {', '.join(map(str, numbers)) or 'nothing'}")


@cli.command()
@click.argument("policy", type=_PATH)
@click.argument("rotation", type=_PATH)
@click.option("-o", "--output", type=_PATH, required=True, metavar="FILE", help="A new file.")
@json_option
def follow(policy: Path, rotation: Path, output: Path, *, as_json: bool) -> None:
    """Write POLICY anew with a witness's new keys, if its old ones signed ROTATION."""
    text = follow_rotation(read_text(policy), read_public(rotation))
    write_public(output, text.encode())
    if as_json:
        echo_json({"policy": str(output)})
    else:
        click.echo(f"the old keys have signed the new ones; written to {output}")


@cli.command()
@click.argument("policy", type=_PATH)
@click.argument("origin")
@click.option("-o", "--output", type=_PATH, required=True, metavar="DIR", help="A folder.")
@click.option("--authority", type=_PATH, help="PEM of a further TLS authority.")
@json_option
def latest(
    policy: Path, origin: str, output: Path, authority: Path | None, *, as_json: bool
) -> None:
    """Ask every witness of POLICY itself for the newest checkpoint of a log.

    For auditors: who got a ledger from its site cannot tell how much was cut off its
    end, and witnesses can. ORIGIN is e.g. site-a/ledger. Give the files to
    `cairn-audit verify --checkpoint`.
    """
    require_extra("witness")
    from common.witness.client import WitnessClient

    client = WitnessClient(authority)
    output.mkdir(parents=True, exist_ok=True)
    got: dict[str, int] = {}
    for witness in read_policy(policy).witnesses:
        if not witness.url:
            continue
        try:
            answer = client.latest(witness.url, origin)
            size = _size_of(answer, origin)
        except (UnreachableError, VerificationError) as error:
            click.echo(f"{witness.name}: {error}", err=True)
            continue
        path = output / f"{len(got) + 1}.note"
        path.write_bytes(answer.body)
        got[witness.name] = size
        if not as_json:
            click.echo(f"{witness.name}: {size} records, {path}")
    if as_json:
        echo_json({"sizes": got})
    if not got:
        raise UnreachableError("no witness of this policy gave a checkpoint", field=origin)


complete(cli)


def main() -> NoReturn:
    """Entry point of ``cairn-witness``."""
    run(cli)


def _print_keys(folder: WitnessFolder, *, as_json: bool) -> None:
    name = folder.name
    keys = [key for generation in folder.generations() for key in generation.public(name)]
    logs = [_standing(folder, origin) for origin in folder.logs()]
    if as_json:
        vkeys = [{"algorithm": algorithm_name(key), "vkey": vkey_text(key)} for key in keys]
        echo_json({"name": name, "keys": vkeys, "logs": logs})
        return
    for key in keys:
        click.echo(f"# {algorithm_name(key)}, fingerprint {key.public.fingerprint[:16]}")
        kind = algorithm_name(key).lower().replace("-", "")
        click.echo(f"witness {name.replace('/', '-')}-{kind} {vkey_text(key)}")
    for log in logs:
        forks = f"; {log['evidence']} REFUSED AS A FORK" if log["evidence"] else ""
        click.echo(f"log {log['origin']}: {log['size']} records{forks}")


def _size_of(answer: Answer, origin: str) -> int:
    if answer.status != 200:
        raise UnreachableError("it gave no checkpoint", got=f"HTTP {answer.status}")
    checkpoint = parse_note(answer.body, any_log=True).checkpoint
    if checkpoint.origin != origin:
        raise VerificationError("it gave another log's checkpoint", expected=origin)
    return checkpoint.size


def _standing(folder: WitnessFolder, origin: str) -> dict[str, object]:
    note = read_note(folder.state / f"{origin_digest(origin)}.note")
    size = parse_note(note, any_log=True).checkpoint.size if note is not None else 0
    return {"origin": origin, "size": size, "evidence": len(evidence_of(folder.state, origin))}


if __name__ == "__main__":
    main()
