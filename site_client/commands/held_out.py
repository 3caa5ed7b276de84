"""``cairn-site held-out``: who is kept out of training, and beginning anew once that is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from common.cli import echo_json, json_option, shown
from common.errors import RefusedError
from site_client.commands.options import site_option
from site_client.site import SiteFolder


@click.command("held-out")
@click.option(
    "--begin-anew", is_flag=True, help="Forget who was held out and who was trained on; asks."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@site_option
@json_option
def held_out(root: Path, *, begin_anew: bool, yes: bool, as_json: bool) -> None:
    """Show which subjects are kept out of training, and where that is set.

    They are chosen once and remembered in worker/heldout.json; set how many in
    policy.toml, [held_out]. The names that this shows stay at the site.

    When that file is lost or damaged, nothing is trained until it is restored from a
    backup. --begin-anew writes a new one instead, and draws everybody again: a model that
    was trained before may then know held-out subjects, and errors on them flatter it. Do it
    only when no plan goes on with such a model, with the worker stopped.

    \b
    --json; fields are added and never renamed:
      subjects, held_out_subjects   how many there are, and are held out
      images, held_out_images       the same of labelled images
      says                          in one line, and where it is set
      names                         of the held-out images
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.heldout.memory import begin_memory
    from site_client.heldout.parts import look_at_parts

    site = SiteFolder(root)
    site.settings()
    if begin_anew:
        if not yes:
            _ask(site)
        begin_memory(site.held_out)
    division = look_at_parts(site)
    names = sorted(division.held_out)
    if as_json:
        echo_json(division.as_dict() | {"names": names})
        return
    click.echo(f"Held out of training: {division.says}")
    for name in names:
        click.echo(shown(f"  {name}"))


def _ask(site: SiteFolder) -> None:
    """Say what follows, and go on only with a yes.

    Raises:
        RefusedError: no yes.
    """
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here; to begin anew all the same: --yes")
    click.echo(
        f"{site.held_out} is written anew. Whoever was trained on may be held out next time: "
        "errors of models from before no longer count as held out."
    )
    if not click.confirm("Begin anew?"):
        raise RefusedError("nothing was changed", expected="a yes", got="another answer")
