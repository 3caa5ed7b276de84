"""Relays: adding, looking, withdrawing; and, on a relay's own machine, running one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aggregator.admin.folder import FederationFolder
from aggregator.admin.relays import (
    KnownRelay,
    add_relay,
    groups,
    known_relays,
    read_relay_file,
    withdraw_relay,
    write_relay_file,
)
from aggregator.commands.options import FILE, FOLDER, NEW_FILE, dir_option
from common.cli import echo_json, json_option
from common.errors import UsageError
from common.extras import require_extra
from common.screen import OWN, Screen
from common.waking import stop_on_signals


@dataclass(frozen=True)
class _Line:
    """A relay in the list; ``here``: it has spoken to the desk just now."""

    name: str
    state: str
    address: str
    here: bool
    sites: list[str]
    connected: list[str]

    @classmethod
    def of(cls, relay: KnownRelay, behind: Mapping[str, frozenset[str]]) -> _Line:
        sites, online = behind.get(relay.name, frozenset()), relay.online()
        return cls(
            relay.name,
            "withdrawn" if relay.withdrawn else "added",
            relay.address,
            online is not None and not relay.withdrawn,
            sorted(sites),
            sorted(sites & (online or frozenset())),
        )


_PROGRAMS = ("superlink", "superexec", "errands")


@click.group()
def relay() -> None:
    """Stand relays between the aggregator and its sites: above some hundred sites, or far away.

    A relay collects its sites' answers and sends up one sum of those that the aggregator
    chose: the same model, to the last bit. It has no authority: what it could bend, sites and
    aggregator find. It sees each of its sites' updates by itself, as the aggregator does
    without one.

    \b
      cairn-aggregator relay add east --address east.example.org:9443 --dir fed -o east.toml
      cairn-aggregator invite site-a --relay east --dir fed
      cairn-aggregator relay up east.toml --dir east        (on the relay's machine)
    """  # noqa: D301 - \b is click's, and must not be an escape


@relay.command()
@click.argument("name")
@dir_option
@click.option(
    "--address", required=True, metavar="HOST:PORT", help="Where its sites will reach it."
)
@click.option(
    "--host", "hosts", multiple=True, help="A further name or address for the certificate."
)
@click.option("-o", "--output", type=NEW_FILE, help="Default: NAME.relay.toml.")
def add(name: str, root: Path, address: str, hosts: tuple[str, ...], output: Path | None) -> None:
    """Make relay NAME's one file: its keys, and whom it trusts. Made again, the former ends."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(
            "not an address", field="--address", expected="HOST:PORT", got=f"{len(address)} signs"
        )
    path = output or Path(f"{name}.relay.toml")
    write_relay_file(path, add_relay(FederationFolder(root), name, address, hosts))
    click.echo(f"Wrote {path}. It holds private keys: hand it over in person or sealed.")
    click.echo(f"There: cairn-aggregator relay up {path.name} --dir {name}")
    click.echo(f"Then, for each of its sites: cairn-aggregator invite SITE --relay {name}")


@relay.command("list")
@dir_option
@json_option
def list_(root: Path, *, as_json: bool) -> None:
    """Every relay: whether it is there, and how many of its sites are connected to it."""
    folder = FederationFolder(root)
    folder.settings()
    behind = groups(folder)
    lines = [_Line.of(one, behind) for one in known_relays(folder).values()]
    if as_json:
        echo_json({"relays": [asdict(line) for line in lines]})
        return
    table = Table("relay", "state", "address", "here", box=None, pad_edge=False, header_style="dim")
    table.add_column("connected", justify="right")
    table.add_column("sites")
    for line in lines:
        here, connected = (
            "yes" if line.here else "no",
            f"{len(line.connected)} of {len(line.sites)}",
        )
        cells = (line.name, line.state, line.address, here, connected, ", ".join(line.sites))
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table if lines else Text("no relay was added yet", style="dim"))


@relay.command()
@click.argument("name")
@dir_option
def withdraw(name: str, root: Path) -> None:
    """Take nothing from relay NAME any more; its sites have to be invited anew."""
    sites = withdraw_relay(FederationFolder(root), name)
    click.echo(f"{name} is refused from now on, and the name never returns.")
    for site in sites:
        click.echo(f"  {site} is behind it: cairn-aggregator invite {site} --relay OTHER (or -)")


@relay.command()
@click.argument("file", type=FILE)
@click.option("--dir", "root", type=FOLDER, required=True, help="The relay's own folder.")
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65532), help="Port to listen on; default: FILE's.")
def up(file: Path, root: Path, bind: str, port: int | None) -> None:
    """Run the relay that FILE names. Ends with Ctrl-C or SIGTERM.

    Its sites connect to it, and it to the aggregator: outward to the aggregator's two
    addresses, inward on --port. What its sites sent stays under DIR/archive, for auditors.
    """
    require_extra("aggregator")
    from aggregator.relays.folder import listening_port, unpack
    from aggregator.relays.service import RelayService

    made = read_relay_file(file)
    folder = unpack(root, made, bind, port or listening_port(made.address))
    stop = stop_on_signals()
    with Screen(_PROGRAMS) as screen:
        RelayService(folder, screen.state, partial(screen.say, OWN)).keep(stop, screen.say)
