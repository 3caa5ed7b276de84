"""``python -m deploy.bundle``: locks, wheels, component lists, the archive, the images.

Each step stands alone; ``make bundle`` and ``make images`` run those they need.
"""

from __future__ import annotations

from pathlib import Path

import click

from common.cli import run
from deploy.bundle.images import BASE, build_images
from deploy.bundle.locks import ROLES, make_locks
from deploy.bundle.pack import pack
from deploy.bundle.sbom import write_sboms
from deploy.bundle.wheels import fetch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Prepare what a hospital installs. Run from a checkout, with CPython 3.11 on x86-64 Linux."""


@cli.command()
def lock() -> None:
    """Resolve every role anew and write deploy/containers/locks (for a release)."""
    for path in make_locks():
        click.echo(f"Wrote {path}")


@cli.command()
def wheels() -> None:
    """Fetch the wheels that the locks name into build/wheels, and build Cairn's own."""
    fetched = fetch()
    size = sum(path.stat().st_size for path in fetched) / 1e6
    click.echo(f"{len(fetched)} wheels, {size:.0f} MB, in {fetched[0].parent}")


@cli.command()
def sbom() -> None:
    """Write build/sbom: per role, what it consists of (CycloneDX)."""
    for path in write_sboms():
        click.echo(f"Wrote {path}")


@cli.command()
@click.option("--base", default=BASE, show_default=True, help="Base image; a release pins it.")
@click.option("--tag", default="dev", show_default=True)
@click.option("--engine", default="podman", show_default=True, help="podman or docker.")
@click.option("--role", "roles", multiple=True, type=click.Choice(ROLES), help="Default: all.")
@click.argument("options", nargs=-1)
def images(base: str, tag: str, engine: str, roles: tuple[str, ...], options: list[str]) -> None:
    """Build the images from build/wheels, without a network. OPTIONS go to the engine."""
    for name in build_images(roles or ROLES, base=base, tag=tag, engine=engine, options=options):
        click.echo(f"Built {name}")


@cli.command("pack")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: below dist/.")
@click.option("--image", "names", multiple=True, help="Also put in this image, e.g. cairn-worker.")
@click.option("--role", "roles", multiple=True, type=click.Choice(ROLES), help="Default: all.")
@click.option("--engine", default="podman", show_default=True)
def pack_(output: Path | None, names: tuple[str, ...], roles: tuple[str, ...], engine: str) -> None:
    """Put wheels, locks, SBOMs, checksums and install.sh into one archive."""
    path = pack(output, roles or ROLES, names, engine)
    click.echo(f"Wrote {path}, {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    run(cli)
