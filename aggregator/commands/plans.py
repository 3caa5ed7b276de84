"""A plan before it starts: what the sites' people will read and decide about."""

from __future__ import annotations

from pathlib import Path

import click

from aggregator.commands.options import desk_if_named, desk_option, dir_option
from common.cli import echo_json, json_option
from common.plan import read_plan
from common.words import all_words, facts_of, held_against, in_words
from common.words.show import show_bounds, show_facts, show_words


@click.group()
def plan() -> None:
    """Read a plan as the sites will."""


@plan.command()
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@dir_option
@desk_option
@json_option
@click.pass_context
def explain(
    context: click.Context,
    plan_file: Path,
    root: Path,
    credential: Path | None,
    *,
    as_json: bool,
) -> None:
    """Say what PLAN asks of the sites, in the words that their people decide by.

    Beside it, the bounds of the policy.toml that a site begins with; each site may
    have changed its own, and that one counts. A person at every site approves the
    plan once, by the fingerprint that stands here: cairn-site plans approve.

    Needs no federation. With --dir or --desk it also says how many sites there are,
    and which of them lack the federation key.

    \b
    --json; fields are added and never renamed:
      plan, kind, fingerprint
      facts    [{name, value}]
      words    [{heading, sentences}]
      leaves   [{record, holds, phases, times, array_bytes, most_bytes}]
      bounds   [{asked, value, policy, bound, holds}]   holds: within the usual policy
      fields   every field of the plan, defaults included
    """  # noqa: D301 - \b is click's, and must not be an escape
    from aggregator.start import check_feasible

    draft = read_plan(plan_file)
    check_feasible(draft)
    desk = desk_if_named(context, root, credential)
    facts = facts_of(draft) if desk is None else desk.facts(plan_file.read_bytes())
    bounds = held_against(draft)
    beyond = [each for each in bounds if not each.holds]
    if as_json:
        words = all_words(draft)
        words["facts"] = [{"name": name, "value": value} for name, value in facts]
        words["bounds"] = [each.as_dict() for each in bounds]
        echo_json(words)
        return
    show_facts(facts)
    show_words(in_words(draft))
    show_bounds("Beside the policy that a site begins with", bounds)
    if beyond:
        click.echo(
            f"A site that has not changed its policy refuses this plan: {beyond[0].asked} must be "
            f"{beyond[0].bound}, is {beyond[0].value}."
        )
    click.echo(
        "At each site a person approves it once, before or while a run waits:\n"
        f"  cairn-site plans approve {draft.fingerprint[:12]}   (or the plan file itself)"
    )
