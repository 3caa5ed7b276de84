"""Both halves at once, for `join` and `peers`: ask now, and do what can be done now.

So the first site has its key before it runs, and the next has heard of the others.

Only while no worker runs: it holds the ledger's lock and does the same by itself.
"""

from __future__ import annotations

from common.crypto.identity import read_signing_key
from common.errors import CairnError, InputDataError, VerificationError
from site_client.egress.keys import KeyDoor
from site_client.keys.keeper import KeyKeeper
from site_client.keys.state import KeyState, read_key_state
from site_client.ledger import open_ledger
from site_client.site import SiteFolder
from site_client.spool import Spool

MOST_TURNS = 4


def exchange_now(site: SiteFolder) -> KeyState | None:
    """Ask, open or seal, and hand over, until nothing more can be done here.

    Returns:
        How the key stands; None when that is the running worker's to say.

    Raises:
        CairnError: the desk does not answer, or refuses; the ledger cannot be opened.
    """
    settings, key = site.settings(), read_signing_key(site.ledger_key)
    try:
        ledger = open_ledger(site, key)
    except InputDataError:
        return read_key_state(site)
    with ledger:
        # A worker's environment, and its container, cannot ask the desk and need not.
        from site_client.keys.carry import KeyCarrier

        carrier = KeyCarrier(site)
        keeper = KeyKeeper(site, key, KeyDoor(ledger, Spool(site.spool), settings.app_sha256))
        state: KeyState | None = None
        for _ in range(MOST_TURNS):
            carrier.turn()
            state = keeper.turn() or state
            if not carrier.has_work:
                break
    return state


def hear(site: SiteFolder) -> str:
    """Ask the desk who the others are, if this folder can and no worker runs that is told.

    Returns:
        Empty, or why nothing new was heard; what was noted before stays.

    Raises:
        InputDataError: not a site folder.
    """
    if site.settings().enrolment is None:
        return "this site joined by mail"
    if not site.has_certificate:
        return "the courier's certificate is not here"
    try:
        exchange_now(site)
    except CairnError as error:
        return error.problem
    except ModuleNotFoundError:
        return "what asks the desk is not installed here"
    return ""


def key_step(site: SiteFolder) -> str:
    """Exchange what can be exchanged now, and say in a line how it stands.

    Raises:
        VerificationError: what came about the key does not hold, or the desk cannot take
            what we sign, as with a clock that is minutes off. The site has joined all the same.
    """
    try:
        state = exchange_now(site)
    except VerificationError:
        raise
    except CairnError as error:
        return (
            f"The federation key was not asked for ({error.problem}); the courier goes on asking."
        )
    if state is None:
        return "The federation key: the worker that runs here sees to it."
    if state.trouble:
        raise VerificationError(
            "joined, but what came about the federation key does not hold",
            field="federation key",
            expected="what a site that has it sealed to this one",
            got=state.trouble,
            advice="It stands in this site's ledger; ask the coordinator by telephone",
        )
    if state.key_id:
        return f"The federation key is here: {state.says}."
    return (
        f"The federation key waits for {state.waiting or 'the desk'}; it then comes by itself "
        "while this site and one that has it are up."
    )
