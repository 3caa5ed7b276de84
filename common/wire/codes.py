"""Failures as numbers: no text about one leaves a site.

An exception's message can hold a path, a patient's name or a pixel. So the
text stays in the site's own log and only one of these numbers crosses.
The numbers are frozen; new ones are appended.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from common.errors import RefusedError


class ReplyCode(IntEnum):
    """The fate of an order, as told to the aggregator."""

    OK = 0
    NO_ANSWER = 1
    """The courier waited for the worker until the deadline. Only the courier says this."""
    REFUSED_BY_POLICY = 2
    """The site's own policy does not allow the plan or the record."""
    REFUSED_AT_DOOR = 3
    """The egress door refused what the worker wanted to release."""
    BAD_DATA = 4
    """The site's images or landmarks cannot be used."""
    BAD_ORDER = 5
    """The order's signature, fingerprint or contents do not hold."""
    OUT_OF_MEMORY = 6
    DISK_FULL = 7
    INTERNAL = 8
    LEDGER_BROKEN = 9
    """The ledger refuses to record, so nothing may leave."""
    UNAPPROVED_APP = 10
    """The run names an app that this site has not pinned. Only the courier says this."""
    UNTRUSTED_KEY = 11
    """What came about the federation key does not hold. Stands in the ledger only."""
    NO_FEDERATION_KEY = 12
    """The plan asks for the key that all sites share, and this site has none yet."""
    FORGED_SUM = 13
    """A sum, its set of sites or its tag does not hold: the aggregator sent another one."""
    BEHIND = 14
    """The site lacks the sums of earlier rounds; the aggregator sends them and asks again."""
    UNKNOWN_PEERS = 15
    """Too few of the run's sites are known to the staff of this one."""
    PLAN_WAITS = 16
    """No person at the site has approved the plan yet; the order is asked again."""
    PLAN_DECLINED = 17
    """A person at the site has declined the plan."""
    BUDGET_SPENT = 18
    """The site's budget over all runs is spent for now."""
    BACKWARDS = 19
    """The round was answered before, or lies before one that was."""
    CHANGED_PLAN = 20
    """The run had another plan, or another roster, when this site first heard of it."""
    UNKNOWN_START = 21
    """The plan starts from a model that this site has not computed and its staff did not name."""
    RECEIPTS_DUE = 22
    """The aggregator has not cosigned what it was sent; the next order must bring its receipt."""
    CONTRADICTED = 23
    """A third witness has seen another history of this site's ledger."""
    UNWITNESSED = 24
    """Too many releases of this site have no quorum of its witnesses."""
    RUN_OVER = 25
    """The site has heard of a later run's turn, or that this run was stopped."""
    RUN_STOPPED = 26
    """The site has recorded that a coordinator stopped the run, and answers it no more."""


EXPLANATIONS: dict[ReplyCode, str] = {
    ReplyCode.OK: "done",
    ReplyCode.NO_ANSWER: "the worker did not answer in time; see the worker's log at the site",
    ReplyCode.REFUSED_BY_POLICY: "the site's policy.toml does not allow this plan",
    ReplyCode.REFUSED_AT_DOOR: "the egress door refused the release; see the site's ledger",
    ReplyCode.BAD_DATA: "the site's data cannot be used; see `cairn-site check` there",
    ReplyCode.BAD_ORDER: "the site could not verify the order; compare plan and witness key",
    ReplyCode.OUT_OF_MEMORY: "the worker ran out of memory",
    ReplyCode.DISK_FULL: "the site's disk is full",
    ReplyCode.INTERNAL: "an internal error; see the worker's log at the site",
    ReplyCode.LEDGER_BROKEN: "the site's ledger does not verify; nothing may leave until it does",
    ReplyCode.UNAPPROVED_APP: "the site has not pinned this app",
    ReplyCode.UNTRUSTED_KEY: "what came about the federation key does not hold",
    ReplyCode.NO_FEDERATION_KEY: "the federation key has not come to this site yet; it comes by "
    "itself while the site and one that has it are up, see `cairn-site check` there",
    ReplyCode.FORGED_SUM: "the site could not verify the sum that it was sent: a summand was "
    "altered, doubled or left out, or a site's tag is wrong",
    ReplyCode.BEHIND: "the site lacks the sums of earlier rounds",
    ReplyCode.UNKNOWN_PEERS: "too few of the run's sites are confirmed there: `cairn-site peers`",
    ReplyCode.PLAN_WAITS: "the plan waits for a person there: `cairn-site plans`",
    ReplyCode.PLAN_DECLINED: "a person at the site has declined the plan",
    ReplyCode.BUDGET_SPENT: "the site's budget over all runs is spent; `cairn-site status` there "
    "says until when",
    ReplyCode.BACKWARDS: "the site has answered this round or a later one already",
    ReplyCode.CHANGED_PLAN: "the site knows this run with another plan or other sites",
    ReplyCode.UNKNOWN_START: "the plan starts from a model that the site does not know",
    ReplyCode.RECEIPTS_DUE: "the site waits for receipts of what it has sent; ask it again, for "
    "the next order brings them",
    ReplyCode.CONTRADICTED: "a witness has seen another history of the site's ledger: "
    "`cairn-site check` there",
    ReplyCode.UNWITNESSED: "too many releases of the site wait for its witnesses; "
    "`cairn-site check` there",
    ReplyCode.RUN_OVER: "the site has gone on to a later run, or knows that this one was stopped",
    ReplyCode.RUN_STOPPED: "the site has recorded that the run was stopped",
}


class NumberedError(RefusedError):
    """A refusal with a number of its own; its words describe and never quote.

    Args:
        field: the name of what does not hold.
        expected: what would have been right.
        got: a description of what came.
    """

    code: ClassVar[ReplyCode]
    problem_text: ClassVar[str] = ""

    def __init__(self, field: str, expected: str, got: str) -> None:
        super().__init__(self.problem_text, field=field, expected=expected, got=got)
