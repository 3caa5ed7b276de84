"""Orders and agreements for the terminal and for the page; both say the same."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import click

from common.audit.asked import SAYS, AskedAndAgreed, PlanAsked, Word
from common.audit.load import Audited
from common.audit.order import ArchivedOrder
from common.cli import shown
from common.words import facts_of, in_words
from common.words.show import show_facts, show_words

_DECIDED = {"APPROVE": "approved", "DECLINE": "declined"}
_NOBODY = "nobody: no record of a decision"
SIGNATURES = {
    "holds": "holds",
    "fails": "DOES NOT HOLD: not this aggregator's, or not these bytes",
    "unrecorded": "was not recorded",
    "no witness key": "was not checked: give the aggregator's key with --witness FILE",
}


def print_asked(account: AskedAndAgreed) -> None:
    """Every plan in words, with who agreed to it, and whom people of the site know."""
    for plan in account.plans:
        click.echo(f"\nPlan {plan.says}")
        for line in decision_lines(plan.words):
            click.echo(f"  {line}")
        if plan.plan is None:
            click.echo(f"  {SAYS[plan.text]}")
        else:
            show_facts(facts_of(plan.plan))
            show_words(in_words(plan.plan))
    if account.peers:
        click.echo("\nOther sites that people of this site know")
        for line in peer_lines(account):
            click.echo(f"  {line}")
    click.echo()


def print_order(audited: Audited, order: ArchivedOrder) -> None:
    """Print an order's words, its plan in words, and what its signature is worth."""
    records = ", ".join(f"#{seq}" for seq in order.records)
    click.echo(f"Order {order.digest} of {audited.verdict.site}, named by records {records}")
    show_facts(order.facts)
    if order.plan is not None:
        show_words(in_words(order.plan))
    click.echo(f"\nThe aggregator's signature over it {SIGNATURES[order.signature]}")
    if audited.witness is not None:
        click.echo(f"  witness {audited.witness.describe()}")
    for line in order.disagreements:
        click.echo(f"  {line}")


def decision_lines(words: Iterable[Word]) -> list[str]:
    """Tell who said what about a plan, oldest first."""
    lines = [
        f"{_DECIDED[word.event]} by {shown(word.person)}, {word.ts} (record #{word.seq})"
        for word in words
    ]
    return lines or [f"approved by {_NOBODY}"]


def peer_lines(account: AskedAndAgreed) -> list[str]:
    """Tell who confirmed or forgot which site, oldest first, and who is known at the end."""
    lines = []
    for word in account.peers:
        did = "confirmed" if word.event == "CONFIRM" else "forgotten"
        key = "" if word.peer_key is None else f", ledger key {word.peer_key}"
        lines.append(
            f"{word.peer} {did} by {shown(word.person)}, {word.ts} (record #{word.seq}){key}"
        )
    return [*lines, f"known now: {', '.join(sorted(account.known)) or 'none'}"]


def asked_html(account: AskedAndAgreed) -> str:
    """Return the same as part of a page; everything from a ledger is escaped."""
    parts = [_plan_html(plan) for plan in account.plans]
    people = "".join(f"<li>{escape(line)}</li>" for line in peer_lines(account))
    return (
        ("".join(parts) or "<p>No record names a plan.</p>")
        + "<h3>Other sites that people of this site know</h3>"
        + f"<ul>{people}</ul>"
    )


def _plan_html(plan: PlanAsked) -> str:
    decided = "".join(f"<li>{escape(line)}</li>" for line in decision_lines(plan.words))
    head = f"<h3>{escape(plan.says)}</h3><ul>{decided}"
    if plan.plan is None:
        return f"{head}<li>{escape(SAYS[plan.text])}</li></ul>"
    facts = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>"
        for name, value in facts_of(plan.plan)
    )
    passages = "".join(
        f"<h4>{escape(passage.heading)}</h4><ul>"
        + "".join(f"<li>{escape(sentence)}</li>" for sentence in passage.sentences)
        + "</ul>"
        for passage in in_words(plan.plan)
    )
    return (
        f'{head}</ul><table class="facts"><tbody>{facts}</tbody></table>'
        f"<details><summary>The plan in words</summary>{passages}</details>"
    )
