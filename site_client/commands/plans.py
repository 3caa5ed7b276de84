"""``cairn-site plans``: a person of this site reads a plan, and decides about it."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.cli import echo_json, json_option, shown
from common.errors import ExitCode, RefusedError
from common.plan import FederationPlan
from common.policy import Policy, check_plan, read_policy
from common.words import all_words, facts_of, held_against, in_words
from common.words.leaving import weights_bytes
from common.words.show import show_bounds, show_facts, show_words
from site_client.commands.options import FILE, site_option
from site_client.files import write_atomically
from site_client.site import SiteFolder

if TYPE_CHECKING:
    from site_client.plans.finding import KnownPlan
    from site_client.worker.dry_run import Rehearsal

_WHICH = click.argument("word", metavar="PLAN|FINGERPRINT")
_BY = click.option(
    "--by", "person", metavar="PERSON", help="Who decides, as they write it; default: your login."
)


@click.group(invoke_without_command=True)
@site_option
@json_option
@click.pass_context
def plans(ctx: click.Context, root: Path, *, as_json: bool) -> None:
    """List the plans that this site was asked for: which wait, and who decided what.

    A coordinator proposes plans; a person of this site approves each once, before
    the first image is opened for it. The run waits meanwhile, also over night.

    \b
      cairn-site plans                        what waits, and since when
      cairn-site plans show 3a662a31          what it asks, in words; what would leave
      cairn-site plans approve 3a662a31       by you, for this and later runs of it
      cairn-site plans refuse 3a662a31        the same, against it; the newest word counts

    Both take a plan file, too, before any run asks for it. A decision is a record of
    the ledger with the person's name. With approval = "bounded" in policy.toml plans
    within its bounds need nobody; a plan beyond them no approval lets through.

    \b
    --json; fields are added and never renamed:
      waiting   how many wait
      plans     [{fingerprint, state, plan, kind, since, run, person, decided_at}]
    """  # noqa: D301 - \b is click's, and must not be an escape
    if ctx.invoked_subcommand is not None:
        _only_after(ctx)
        return
    from site_client.plans.finding import known_plans

    site = SiteFolder(root)
    site.settings()
    entries = known_plans(site)
    waiting = [each for each in entries if each.state == "waiting"]
    if as_json:
        echo_json({"waiting": len(waiting), "plans": [each.as_dict() for each in entries]})
        return
    _list(entries)
    if waiting:
        short = waiting[0].fingerprint[:12]
        click.echo(f"Read it: cairn-site plans show {short}")
        click.echo(f"Then: cairn-site plans approve {short}   (or: refuse {short})")


@plans.command()
@_WHICH
@site_option
@click.option("--no-rehearsal", is_flag=True, help="Words and bounds only; open no image.")
@click.option("--codebook", type=FILE, help="Labelled codebook, for an embed plan.")
@click.option("--codec", type=FILE, help="Its codec; default: the one a pixels run left here.")
@click.option("-o", "--page", type=FILE, help="Also write a page with a picture of every array.")
@json_option
@click.pass_context
def show(
    ctx: click.Context,
    word: str,
    root: Path,
    codebook: Path | None,
    codec: Path | None,
    page: Path | None,
    *,
    no_rehearsal: bool,
    as_json: bool,
) -> None:
    """Show a plan in words, beside this site's bounds, and what a round would let out.

    Of a plan that waits, the text that really came is shown and rehearsed: the same
    rehearsal as `cairn-site dry-run`, which sends and records nothing.

    Exit 3 when the policy or the door would refuse it.
    """
    from site_client.plans.finding import find_plan, text_of

    if page is not None and no_rehearsal:
        raise click.UsageError("a page shows a rehearsal: leave out --no-rehearsal")
    site = SiteFolder(root)
    site.settings()
    entry = find_plan(site, word)
    plan, policy = text_of(entry), read_policy(site.policy_file)
    refusal = _refusal(policy, plan)
    if not as_json:
        _tell(entry, plan, policy, refusal)
    rehearsal = None
    if refusal is None and not no_rehearsal:
        rehearsal = _rehearse(site, plan, codebook, codec, page)
    if as_json:
        bounds = [each.as_dict() for each in held_against(plan, _flat(policy))]
        words = all_words(plan) | entry.as_dict() | {"bounds": bounds}
        words["refusal"] = None if refusal is None else refusal.as_dict()
        words["rehearsal"] = None if rehearsal is None else rehearsal.as_dict()
        echo_json(words)
    elif rehearsal is not None:
        from site_client.commands.rehearse import tell_rehearsal

        click.echo()
        tell_rehearsal(rehearsal)
        if page is not None:
            click.echo(f"Pictures: {page}")
    if not as_json and entry.state == "waiting" and refusal is None:
        short = plan.fingerprint[:12]
        click.echo(f"Decide: cairn-site plans approve {short}   (or: refuse {short})")
    allowed = refusal is None and (rehearsal is None or rehearsal.allowed)
    ctx.exit(int(ExitCode.OK if allowed else ExitCode.REFUSED))


@plans.command()
@_WHICH
@site_option
@_BY
@json_option
def approve(word: str, root: Path, person: str | None, *, as_json: bool) -> None:
    """Let a plan be served here, in this run and in later ones, until it is refused.

    Exit 3 for a plan beyond policy.toml: nobody's approval lifts a bound.
    """
    from site_client.plans.finding import find_plan, text_of

    site = SiteFolder(root)
    site.settings()
    entry = find_plan(site, word)
    refusal = _refusal(read_policy(site.policy_file), text_of(entry))
    if refusal is not None:
        raise refusal
    _record(site, entry, "APPROVE", person, as_json=as_json)


@plans.command()
@_WHICH
@site_option
@_BY
@json_option
def refuse(word: str, root: Path, person: str | None, *, as_json: bool) -> None:
    """Serve a plan no more, in this run and in later ones, until it is approved.

    What has left already has left; see it with cairn-audit show.
    """
    from site_client.plans.finding import find_plan

    site = SiteFolder(root)
    site.settings()
    _record(site, find_plan(site, word), "DECLINE", person, as_json=as_json)


def _record(
    site: SiteFolder,
    entry: KnownPlan,
    event: Literal["APPROVE", "DECLINE"],
    person: str | None,
    *,
    as_json: bool,
) -> None:
    """Put a decision into the ledger, and say that it stands there."""
    from site_client.decisions.making import Decision, decide
    from site_client.plans.waiting import note_brought

    who = _login() if person is None else person
    decision = Decision.made(event=event, person=who, plan_fingerprint=entry.fingerprint)
    if entry.plan is not None:
        note_brought(site, entry.plan, datetime.now(UTC))
    decide(site, [decision])
    word = "approved" if event == "APPROVE" else "declined"
    if as_json:
        echo_json({"fingerprint": entry.fingerprint, "state": word, "person": who})
        return
    name = f"{entry.name} " if entry.name else ""
    about = f"{name}{entry.fingerprint[:12]}"
    click.echo(f"Plan {about} is {word} by {shown(who)}; the ledger says so.")


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError) as error:
        raise click.UsageError("this login has no name: say who decides with --by") from error


def _only_after(ctx: click.Context) -> None:
    """Options between ``plans`` and its command would be passed over: say so instead."""
    for name in ("root", "as_json"):
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"options come last: plans {ctx.invoked_subcommand} … --…")


def _refusal(policy: Policy, plan: FederationPlan) -> RefusedError | None:
    """Find what the worker would refuse the plan for, whoever approved it."""
    try:
        check_plan(policy, plan, weights_bytes=weights_bytes(plan))
    except RefusedError as error:
        return error
    return None


def _flat(policy: Policy) -> dict[str, object]:
    """Values of a policy by dotted name."""
    sections = policy.model_dump(mode="json", exclude_none=True)
    return {
        f"{name}.{field}": value
        for name, section in sections.items()
        if isinstance(section, dict)
        for field, value in section.items()
    }


def _list(entries: tuple[KnownPlan, ...]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("plan", "fingerprint", "state", "since", "run", "by"):
        table.add_column(column, no_wrap=column != "by")
    for each in entries:
        decided = each.decided
        cells = (
            each.name or "?",
            each.fingerprint[:12],
            "WAITS" if each.state == "waiting" else each.state,
            each.since if decided is None else decided.ts,
            each.run or "",
            "" if decided is None else shown(decided.person),
        )
        table.add_row(*(Text(cell) for cell in cells))
    empty = Text("no plan was asked for, approved or declined yet", style="dim")
    Console().print(table if entries else empty, soft_wrap=True)


def _tell(
    entry: KnownPlan, plan: FederationPlan, policy: Policy, refusal: RefusedError | None
) -> None:
    """Print where a plan stands, what it asks, and the bounds that it was held against."""
    match entry.state, entry.decided:
        case "waiting", _:
            click.echo(f"Waits since {entry.since}, for run {entry.run}.")
        case state, decided if decided is not None:
            click.echo(f"{state.capitalize()} by {shown(decided.person)}, {decided.ts}.")
        case _:
            click.echo("Nobody has decided about this plan here.")
    show_facts(facts_of(plan))
    show_words(in_words(plan))
    show_bounds(f"Beside policy.toml ({policy.sha256[:12]})", held_against(plan, _flat(policy)))
    if refusal is not None:
        click.echo(str(refusal))


def _rehearse(
    site: SiteFolder,
    plan: FederationPlan,
    codebook: Path | None,
    codec: Path | None,
    page: Path | None,
) -> Rehearsal:
    from common.reporter import Reporter
    from site_client.worker.dry_run import rehearse
    from site_client.worker.rehearsal_page import RehearsalPage

    pictures = RehearsalPage()
    with Reporter() as progress:
        rehearsal = rehearse(
            site, plan, progress, codebook, codec, None if page is None else pictures.draw
        )
    if page is not None:
        write_atomically(page, pictures.render(rehearsal).encode("utf-8"))
    return rehearsal
