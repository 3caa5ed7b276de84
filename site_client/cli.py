"""The ``cairn-site`` command: join, look, rehearse, run.

Parses, calls and prints; what is done lives in the rooms beside it, which are
imported by the commands that use them: a command that is asked little answers
soon, and a courier's machine needs none of the worker's packages, nor the other
way round.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.cli import echo_json, megabytes, run
from common.enrolment import Invite, read_invite
from common.errors import ExitCode
from common.plan import read_plan
from site_client.console import Reporter, log_to, stop_on_signals
from site_client.files import write_atomically
from site_client.notify import notify
from site_client.site import SiteFolder

if TYPE_CHECKING:
    from site_client.facts import Fact

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_SITE = click.option(
    "--site-dir",
    "root",
    envvar="CAIRN_SITE",
    default=".",
    show_default=True,
    type=_FOLDER,
    help="The site's folder.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_PLAN = click.option(
    "--plan", "plan_file", required=True, type=_FILE, help="The federation plan (TOML)."
)
_AGENT_COMMANDS = ("train", "evaluate", "play", "import-weights")
_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]look[/]", "bad": "[red]BAD[/]"}


class _Commands(click.Group):
    """The agent's own commands are imported when asked for; ``--plan`` means the federation's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_AGENT_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _AGENT_COMMANDS:
            return super().get_command(ctx, cmd_name)
        from site_client.agent_app.commands import COMMANDS

        return COMMANDS[cmd_name]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        planned = any(word == "--plan" or word.startswith("--plan=") for word in args)
        if planned and args[0] in ("train", "evaluate"):
            args = [f"{args[0]}-plan", *args[1:]]
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Take part in a federation with this hospital's images, which stay here.

    \b
    From an invite to the first round:
      cairn-site join site-a.invite.toml --data /images --site-dir site
      cairn-site check --site-dir site           what is missing, and what to do
      cairn-site dry-run plan.toml --site-dir site      exactly what would leave
      cairn-site up --site-dir site              (leave it running)

    What may leave is bounded by site/policy.toml, which is yours to edit; what
    left stands in site/worker/ledger, which `cairn-audit` verifies.

    The agent on its own, without a federation: train, evaluate, play, import-weights.

    Exit codes: 0 fine; 2 usage; 3 refused by policy; 4 verification failed;
    5 peer unreachable; 6 bad input data; 7 internal.
    """  # noqa: D301 - \b is click's, and must not be an escape


@cli.command()
@click.argument("invite_file", metavar="INVITE", type=_FILE)
@click.option("--data", required=True, type=_FOLDER, help="Folder of images and landmarks.")
@_SITE
@click.option(
    "--federation-key", "key_file", type=_FILE, help="By hand: the key that all sites share."
)
@click.option(
    "--new-federation-key", is_flag=True, help="By hand: make that key, at the first site."
)
@click.option("--offline", is_flag=True, help="Use no network: send request.json by mail instead.")
def join(
    invite_file: Path,
    data: Path,
    root: Path,
    key_file: Path | None,
    *,
    new_federation_key: bool,
    offline: bool,
) -> None:
    """Make this site's keys and folder from an INVITE, and send the public halves.

    Private keys are made here and never leave. The invite's token lets them in, once;
    an invite without a token, or --offline, leaves a request.json to be sent by mail.
    The key that all sites share is made by the first of them and comes, sealed, by
    itself; --federation-key and --new-federation-key are for carrying it by hand.
    Joining again keeps the keys: after a lost answer, or with a new invite.
    """
    from site_client.join import bring_federation_key, check_invite, join_again
    from site_client.join import join as join_federation

    if key_file is not None and new_federation_key:
        raise click.UsageError("give --federation-key or --new-federation-key, not both")
    site, invite = SiteFolder(root), read_invite(invite_file)
    check_invite(invite)
    shared = bring_federation_key(key_file, new=new_federation_key)
    online = invite.enrolment is not None and not offline
    if online:
        from site_client.enrol import look_who_answers

        look_who_answers(invite)
    if online and site.settings_file.exists():
        joined = join_again(invite, site, data)
    else:
        joined = join_federation(invite, site, data, shared)
    steps = [_send(invite, site)] if online else []
    click.echo(
        f"{invite.site} {'has joined' if online else 'is ready to join'} {invite.federation}."
    )
    steps.append(
        f"Compare with the coordinator, by telephone:\n     authority    {joined.ca_sha256}\n"
        f"     witness key  {joined.witness}\n     ledger key   {joined.ledger}"
    )
    if not online:
        steps.append(f"Send {joined.request} (it holds public keys only).")
    if site.tls_certificate.exists() and online:
        from site_client.keys.first import key_step

        steps.append(key_step(site))
    elif new_federation_key:
        steps.append(f"Carry {site.federation_key} to the other sites; never to the aggregator.")
    elif not joined.has_federation_key:
        steps.append(f"Get the federation key from another site, as {site.federation_key}.")
    for number, step in enumerate(steps, 1):
        click.echo(f"{number}. {step}")
    click.echo(f"Read {site.policy_file}: it bounds what may leave. Then: cairn-site check")


def _send(invite: Invite, site: SiteFolder) -> str:
    """Send the request, and say in a line how the site stands now."""
    from site_client.enrol import LARGEST_SKEW_S, send_request

    standing = send_request(invite, site)
    if abs(standing.skew_s) > LARGEST_SKEW_S:
        way = "ahead of" if standing.skew_s > 0 else "behind"
        click.echo(
            f"This machine's clock is {abs(standing.skew_s):.0f} s {way} the aggregator's: set it "
            "(NTP), or the courier will be refused.",
            err=True,
        )
    if standing.state == "waiting":
        return f"Wait for the coordinator, who has to: cairn-aggregator admit {invite.site}"
    return f"Admitted; the certificate is good for {standing.certificate_days} days."


@cli.command()
@_SITE
@_JSON
def renew(root: Path, *, as_json: bool) -> None:
    """Renew this site's certificate in place; keys and name stay as they are.

    A site that waits for the coordinator learns here whether it was admitted.
    """
    from site_client.enrol import ask_standing, renew_certificate

    site, state = SiteFolder(root), "admitted"
    days: int | None = None
    if site.tls_certificate.exists():
        days = renew_certificate(site)
    else:
        standing = ask_standing(site)
        state, days = standing.state, standing.certificate_days
    if as_json:
        echo_json({"state": state, "certificate_days": days})
    elif days is None:
        click.echo("The coordinator has not admitted this site yet.")
    else:
        click.echo(f"The certificate is good for {days} days.")


@cli.command()
@_SITE
@click.option("--plan", "plan_file", type=_FILE, help="Say also whether this plan may be served.")
@_JSON
@click.pass_context
def check(ctx: click.Context, root: Path, plan_file: Path | None, *, as_json: bool) -> None:
    """Say what is ready and what is not, one fact per line, each with what to do.

    Inside a container it looks at what that container has, and at what the kernel lets
    it do: `podman exec cairn-worker cairn-site check`.

    \b
    --json, for monitoring; fields are added and never renamed:
      {"ready": true,                     no fact is bad
       "facts": [{"name": "server",       what was looked at
                  "level": "ok",          or "warning" or "bad"
                  "says": "...",          what was found
                  "fix": ""}]}            what to do; empty when nothing

    Ends with 0 when ready, else with the code of the first bad fact.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.checks import check_site

    facts: list[Fact] = []
    console = Console()
    plan = None if plan_file is None else read_plan(plan_file)
    for fact in check_site(SiteFolder(root), plan):
        facts.append(fact)
        if not as_json:
            console.print(f"{_MARKS[fact.level]:>14} {fact.name}: ", end="")
            console.print(fact.says, markup=False, highlight=False, soft_wrap=True)
            if fact.fix:
                console.print(f"       {fact.fix}", markup=False, highlight=False, soft_wrap=True)
    worst = next((fact for fact in facts if fact.level == "bad"), None)
    if as_json:
        names = ("name", "level", "says", "fix")
        echo_json(
            {
                "ready": worst is None,
                "facts": [{name: getattr(fact, name) for name in names} for fact in facts],
            }
        )
    ctx.exit(0 if worst is None else int(worst.exit_code))


@cli.command("dry-run")
@click.argument("plan_file", metavar="PLAN", type=_FILE)
@click.option("--codebook", type=_FILE, help="Labelled codebook, for an embed plan.")
@click.option("--codec", type=_FILE, help="Its codec; default: the one a pixels run left here.")
@click.option("-o", "--page", type=_FILE, help="Also write a page with a picture of every array.")
@_SITE
@_JSON
@click.pass_context
def dry_run(
    ctx: click.Context,
    plan_file: Path,
    codebook: Path | None,
    codec: Path | None,
    page: Path | None,
    root: Path,
    *,
    as_json: bool,
) -> None:
    """Work a round of PLAN without a network, and show exactly what would leave.

    The same policy and the same gate as in earnest; nothing is sent, and nothing
    enters the ledger or the outbox. Exit 3 when the door would refuse.
    """
    from site_client.worker.dry_run import rehearse
    from site_client.worker.rehearsal_page import RehearsalPage

    pictures, plan = RehearsalPage(), read_plan(plan_file)
    seen = None if page is None else pictures.draw
    with Reporter() as progress:
        rehearsal = rehearse(SiteFolder(root), plan, progress, codebook, codec, seen)
    if page is not None:
        write_atomically(page, pictures.render(rehearsal).encode("utf-8"))
    if as_json:
        echo_json(rehearsal.as_dict())
    else:
        table = Table(title=f"What a round of {rehearsal.plan} lets out")
        for column in ("order", "record", "bytes", "arrays", "L2 norm", "fill", "door"):
            table.add_column(column, justify="right" if column == "bytes" else "left")
        for found in rehearsal.findings:
            arrays = "\n".join(f"{a.name} {a.dtype}{list(a.shape)}" for a in found.arrays)
            cells = (
                found.phase,
                found.record_type,
                f"{found.bytes:,}",
                arrays or "none",
                "" if found.l2 is None else f"{found.l2:.4g}",
                "" if found.fill is None else f"{found.fill:.1%}",
                found.refusal or "may leave",
            )
            table.add_row(*(Text(cell) for cell in cells))
        Console().print(table)
        for found in rehearsal.findings:
            click.echo(f"{found.phase} {found.record_type}: {json.dumps(found.header)}")
        click.echo(
            f"{megabytes(rehearsal.bytes)} in all; policy {rehearsal.policy_sha256[:12]}, "
            f"plan {rehearsal.plan_fingerprint[:12]}. Nothing was sent or recorded."
        )
        if page is not None:
            click.echo(f"Pictures: {page}")
    ctx.exit(int(ExitCode.OK if rehearsal.allowed else ExitCode.REFUSED))


@cli.command()
@_SITE
@click.option("--once", is_flag=True, help="Answer what waits, then end.")
def worker(root: Path, *, once: bool) -> None:
    """Answer orders: images in, released records out; no network.

    Ends on SIGTERM; an order in hand is then worked on again after the next start.
    """
    from site_client.worker.loop import Worker

    site = SiteFolder(root)
    site.settings()
    log_to(site.worker_log)
    stop = stop_on_signals()
    with Reporter() as progress, Worker(site, stop, progress) as answering:
        notify(ready=True, status="waiting for orders")
        if not once:
            answering.run()
        while once and not stop.is_set() and answering.turn():
            pass


@cli.command()
@_SITE
def courier(root: Path) -> None:
    """Carry orders in and released replies out; opens no image.

    Beside that: renews the certificate, and carries the federation key as the worker
    sealed it.
    """
    from site_client.courier import run_courier

    site = SiteFolder(root)
    enrolment = site.settings().enrolment
    log_to(None)
    stop = stop_on_signals()
    if enrolment is not None:
        from site_client.enrol import keep_renewed
        from site_client.keys.carry import keep_carrying

        say = logging.getLogger("cairn.enrolment").warning
        threading.Thread(target=keep_renewed, args=(site, stop, say), daemon=True).start()
        threading.Thread(target=keep_carrying, args=(site, stop), daemon=True).start()
    notify(ready=True, status="carrying")
    run_courier(site, stop)


@cli.command()
@_SITE
@click.pass_context
def up(ctx: click.Context, root: Path) -> None:
    """Run worker and courier as two processes, and start again the one that dies."""
    from site_client.supervise import Child, commands, keep_running

    site = SiteFolder(root)
    name = site.settings().site
    stop = stop_on_signals()

    def say(text: str) -> None:
        click.echo(f"{name}: {text}", err=True)

    children = [Child(kind, command, say) for kind, command in commands(site.root).items()]
    ctx.exit(keep_running(children, stop, say))


@cli.command()
@_SITE
@_JSON
def status(root: Path, *, as_json: bool) -> None:
    """What this site did last: round, ledger, bytes out, last line of the log.

    \b
    --json, for monitoring; fields are added and never renamed:
      site              its name
      last              null, or {run, round, phase, plan, code, meaning, seconds, at}
      records           in the ledger
      bytes_out         recorded as sent
      refusals          by the door or the worker
      witnessed         records that the aggregator has cosigned
      waiting           [orders not yet answered, replies not yet fetched]
      log               last line of the worker's log
      key               null, or how the federation key stands
      certificate_days  until ours expires; negative: it has; null: none

    Reads files only: it asks nobody, and works while worker and courier run.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.status import read_status

    found = read_status(SiteFolder(root))
    if as_json:
        echo_json(found.as_dict())
        return
    last = found.last
    click.echo(f"site      {found.site}")
    if last is None:
        click.echo("last      no order yet")
    else:
        click.echo(
            f"last      {last['run']}, round {last['round']} ({last['phase']}): "
            f"{last['meaning']}, {last['seconds']} s, {last['at']}"
        )
    click.echo(
        f"ledger    {found.records} records, {found.refusals} refusals, "
        f"witnessed to {found.witnessed}"
    )
    click.echo(f"out       {megabytes(found.bytes_out)}")
    click.echo(f"key       {'nothing heard yet' if found.key is None else found.key.says}")
    if found.key is not None and found.key.trouble:
        click.echo(f"REFUSED   {found.key.trouble}")
    if found.certificate_days is not None:
        click.echo(f"ours      certificate good for {found.certificate_days} days")
    click.echo(f"waiting   {found.waiting[0]} orders, {found.waiting[1]} replies")
    click.echo(f"log       {found.log or 'empty'}")


@cli.command("train-plan", hidden=True)
@_PLAN
@click.option("--data", required=True, type=_FOLDER, help="Folder of images to train on.")
@click.option("-o", "--output", required=True, type=_FOLDER, help="Folder for the results.")
@_JSON
def train_plan(plan_file: Path, data: Path, output: Path, *, as_json: bool) -> None:
    """Train on one folder alone, with as many updates as the plan's rounds: the baseline.

    Writes weights.safetensors and metrics.json into the output folder. Needs no site
    folder and no federation.
    """
    from site_client.worker.local import train_alone

    plan = read_plan(plan_file)
    with Reporter() as progress:
        rounds, digest = train_alone(plan, data, output, progress)
    metrics = {
        "plan": plan.name,
        "plan_fingerprint": plan.fingerprint,
        "weights_sha256": digest,
        "rounds": [entry.as_dict() for entry in rounds],
    }
    write_atomically(output / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
    if as_json:
        echo_json(metrics)
    else:
        last = rounds[-1].training
        click.echo(
            f"{last.updates_total} updates on {last.images} images, loss {last.loss_mean:.3f}; "
            f"{output / 'weights.safetensors'}"
        )


@cli.command("evaluate-plan", hidden=True)
@_PLAN
@click.option("--model", required=True, type=_FILE, help="Weights (safetensors).")
@click.option("--data", required=True, type=_FOLDER, help="Folder of held-out images.")
@click.option("--training", type=_FOLDER, help="Folder trained on, for the constant predictor.")
@click.option("--trajectory", type=_FILE, help="Also write every search, step by step (JSON).")
@_JSON
def evaluate_plan(
    plan_file: Path,
    model: Path,
    data: Path,
    training: Path | None,
    trajectory: Path | None,
    *,
    as_json: bool,
) -> None:
    """Measure a model on held-out images, in mm, beside a predictor that never looks.

    A trajectory file holds case names and positions: it stays at the site.
    """
    from site_client.worker.local import evaluate_alone, read_weights, trajectories

    plan = read_plan(plan_file)
    weights = read_weights(model, plan)
    with Reporter() as progress:
        report = evaluate_alone(plan, weights, data, training, progress)
        if trajectory is not None:
            paths = trajectories(plan, weights, data, progress)
            write_atomically(trajectory, json.dumps(paths).encode())
    if as_json:
        echo_json(report.as_dict())
        return
    table = Table(title=f"{plan.name} on {report.cases} cases, errors in {report.unit}")
    for column in ("landmark", "pose", "mean", "std", "median", "over 10", "consensus", "prior"):
        table.add_column(column, justify="left" if column in ("landmark", "pose") else "right")
    for pose, summaries in (("random", report.posed), ("as acquired", report.native)):
        for name, s in summaries.items():
            prior = "" if s.prior is None else f"{s.prior:.2f}"
            far = "" if s.share_above_10mm is None else f"{s.share_above_10mm:.1%}"
            table.add_row(
                name,
                pose,
                f"{s.mean:.2f}",
                f"{s.std:.2f}",
                f"{s.median:.2f}",
                far,
                f"{s.consensus:.2f}",
                prior,
            )
    Console().print(table)


@cli.command()
@click.argument("slide", metavar="SLIDE", type=click.Path(path_type=Path))
@click.option("--codebook", "book", required=True, type=_FILE, help="Labelled codebook (JSON).")
@click.option(
    "--codec", type=_FILE, help="Its codec (JSON); default: as a run of pixels left it here."
)
@click.option(
    "-o", "--output", required=True, type=_FILE, help="The map: .mha, .nii or .nii.gz; labels."
)
@_SITE
@_JSON
def embed(
    slide: Path, book: Path, codec: Path | None, output: Path, root: Path, *, as_json: bool
) -> None:
    """Map one SLIDE (a file, or a folder of single-band TIFFs) with a codebook.

    Every pixel becomes 0 (background) or 1 plus the number of its group. Nothing leaves;
    no federation is needed once you have the two files.
    """
    from site_client.worker.embedding import embed_alone

    with Reporter() as progress:
        counts = embed_alone(slide, book, codec, SiteFolder(root).worker, output, progress)
    if as_json:
        echo_json({"output": str(output), "pixels": counts})
        return
    table = Table("label", "group", box=None, pad_edge=False, header_style="dim")
    table.add_column("pixels", justify="right")
    for label, (name, pixels) in enumerate(counts.items()):
        table.add_row(str(label), Text(name), f"{pixels:,}")
    Console().print(table)
    click.echo(f"Wrote {output}")


def main() -> NoReturn:
    """Entry point of ``cairn-site``."""
    run(cli)


if __name__ == "__main__":
    main()
