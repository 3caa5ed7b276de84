"""Checks of a model's folder, each by itself and by name, offline.

``card.json`` and ``checkpoint.json`` are believed only as far as plan and provenance say the
same; the provenance only as far as its signature, the chain of sums and, where they are there,
the sums themselves bear it out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from common.arrivals.boundary import contained
from common.arrivals.texts import json_of
from common.canonical import parse_canonical_json, sha256_hex
from common.checkpoint import (
    ABOUT_FILE,
    MODEL_FILE,
    loaded_weights,
    names_of,
    planned_config,
)
from common.crypto.identity import PublicKey
from common.errors import CairnError, VerificationError
from common.model import Weights, check_weights, initial_weights, weights_digest
from common.plan import FederationPlan, parse_plan
from common.released.card import decode_card, render_card
from common.released.folder import (
    CARD_FILE,
    CARD_PAGE,
    PLAN_FILE,
    PROVENANCE_FILE,
    SIGNATURE_FILE,
    SIGNED_FILES,
    START_FILE,
    ModelFolder,
    sum_name,
)
from common.released.provenance import Provenance, RoundSum, decode_provenance, verify_provenance
from common.sums.addition import Sum, decode_sum, sum_digest
from common.sums.chain import first_link, next_link
from common.sums.training import ModelState, advance
from common.wire.records import ModelUpdate

_DIGITS: Final = 16


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of what.
        holds: whether it does; None where it could not be looked at.
        says: what was found.
    """

    name: str
    holds: bool | None
    says: str

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {"name": self.name, "holds": self.holds, "says": self.says}


@dataclass(frozen=True)
class Checked:
    """A model's folder after it was looked at.

    Attributes:
        provenance: as it says, believed or not.
        plan: None if it cannot be read.
        checks: in order.
    """

    provenance: Provenance
    plan: FederationPlan | None
    checks: tuple[Check, ...]

    @property
    def broken(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if check.holds is False)


def check_folder(folder: ModelFolder, key: PublicKey) -> Checked:
    """Look at everything that a folder says of itself.

    Args:
        folder: of the model.
        key: the aggregator's.

    Raises:
        VerificationError: its provenance is none.
        InputDataError: a file cannot be read.
    """
    data = folder.read(PROVENANCE_FILE) or b""
    provenance = decode_provenance(data)
    signature = folder.read(SIGNATURE_FILE) or b""
    checks = [
        _look(
            "signature",
            lambda: verify_provenance(data, signature, key),
            f"made with the aggregator's key {key.fingerprint[:_DIGITS]}",
        ),
        *_files(folder, provenance),
    ]
    plan, check = _plan(folder, provenance)
    checks.append(check)
    if plan is None:
        return Checked(provenance, None, tuple(checks))
    checks += [
        _look(
            "weights",
            lambda: _weights(folder, provenance, plan),
            f"of the plan's network, digest {provenance.weights[:_DIGITS]}",
        ),
        _look("settings", lambda: _settings(folder, plan), "those of the plan"),
        _look("card", lambda: _card(folder, provenance), "says what the provenance says"),
        _look("rounds", lambda: _rounds(provenance, plan), _said_of(provenance)),
        _look(
            "chain",
            lambda: _chain(provenance),
            f"{len(provenance.rounds)} sums lead to link {provenance.link[:_DIGITS]}",
        ),
        _look_at_start(folder, provenance, plan),
        _look_at_sums(folder, provenance, plan),
    ]
    return Checked(provenance, plan, tuple(checks))


def _look(name: str, holds: Callable[[], object], says: str) -> Check:
    """Do a check that raises when something does not hold."""
    try:
        with contained(f"a model's {name}"):
            holds()
    except CairnError as error:
        return Check(name, holds=False, says=str(error))
    return Check(name, holds=True, says=says)


def _files(folder: ModelFolder, provenance: Provenance) -> Iterator[Check]:
    """Compare every file with its digest; each is a check of its own, so that it is named."""
    for name in sorted({*SIGNED_FILES, *provenance.files}):
        data, digest = folder.read(name), provenance.files.get(name, "")
        if data is None:
            yield Check(name, holds=False, says="is not there")
        elif not digest:
            yield Check(name, holds=False, says="is not in the provenance")
        elif sha256_hex(data) != digest:
            yield Check(name, holds=False, says="is not as it was signed: another digest")
        else:
            yield Check(name, holds=True, says=f"as it was signed, {len(data):,} bytes")


def _plan(folder: ModelFolder, provenance: Provenance) -> tuple[FederationPlan | None, Check]:
    try:
        plan = parse_plan(parse_canonical_json(folder.read(PLAN_FILE) or b"", PLAN_FILE))
    except CairnError as error:
        return None, Check("plan", holds=False, says=str(error))
    if not plan.trains:
        return None, Check("plan", holds=False, says=f"a plan of kind {plan.kind} has no model")
    same = plan.fingerprint == provenance.plan
    says = f"{plan.name}, fingerprint {plan.fingerprint[:_DIGITS]}"
    return plan, Check("plan", same, says if same else f"{says}; another was signed")


def _weights(folder: ModelFolder, provenance: Provenance, plan: FederationPlan) -> Weights:
    weights = loaded_weights(folder.read(MODEL_FILE) or b"")
    check_weights(weights, plan)
    _same("weights", provenance.weights, weights_digest(weights))
    return weights


def _settings(folder: ModelFolder, plan: FederationPlan) -> None:
    """Compare the settings that the agent will have with the plan's own, key by key."""
    try:
        about = json_of(folder.read(ABOUT_FILE) or b"")
        said = about if isinstance(about, dict) else {}
        config, names = said["config"], said["landmarks"]
    except (ValueError, KeyError) as error:
        raise VerificationError(
            "not a checkpoint", field=ABOUT_FILE, got=type(error).__name__
        ) from error
    planned = json.loads(json.dumps(planned_config(plan)))
    sections = config if isinstance(config, dict) else {}
    for section in sorted({*planned, *sections}):
        expected, got = planned.get(section), sections.get(section)
        if expected == got:
            continue
        names = expected if isinstance(expected, dict) else {}
        given = got if isinstance(got, dict) else {}
        keys = (key for key in sorted({*names, *given}) if names.get(key) != given.get(key))
        raise _other(f"{section}.{next(keys, '')}", "as the plan has it", "another value")
    if names != list(names_of(plan)):
        raise _other("landmarks", "the plan's names", "others")


def _card(folder: ModelFolder, provenance: Provenance) -> None:
    card = decode_card(folder.read(CARD_FILE) or b"")
    for name in ("federation", "run", "verdict", "finished", "plan", "weights", "start"):
        _same(f"card.{name}", getattr(provenance, name), getattr(card, name))
    if render_card(card).encode() != folder.read(CARD_PAGE):
        raise _other(CARD_PAGE, f"the page of {CARD_FILE}", "another text")


def _rounds(provenance: Provenance, plan: FederationPlan) -> None:
    """Compare rounds, sites and momentum with what the plan asked for."""
    if len(provenance.rounds) != plan.rounds.training:
        raise _other("rounds", f"{plan.rounds.training}", f"{len(provenance.rounds)}")
    if provenance.server_momentum != plan.rounds.server_momentum:
        raise _other("server_momentum", "the plan's", "another")
    roster = {entry.site for entry in provenance.roster}
    for each in provenance.rounds:
        if not set(each.sites) <= roster or len(set(each.sites)) != len(each.sites):
            raise _other(f"round {each.round}", "sites of the roster, each once", "others")
        if len(each.sites) < plan.rounds.quorum:
            raise _other(f"round {each.round}", f"{plan.rounds.quorum} sites", f"{len(each.sites)}")


def _said_of(provenance: Provenance) -> str:
    sites = sorted({site for each in provenance.rounds for site in each.sites})
    samples = sum(each.samples for each in provenance.rounds)
    return f"{len(provenance.rounds)} of {', '.join(sites)}; {samples:,} samples in all"


def _chain(provenance: Provenance) -> None:
    link = first_link(provenance.run, provenance.plan, provenance.roster, provenance.start)
    for each in provenance.rounds:
        link = next_link(link, each.sum_sha256)
    _same("link", provenance.link, link)


def _look_at_start(folder: ModelFolder, provenance: Provenance, plan: FederationPlan) -> Check:
    """Derive the first weights from the seed, or find the start model that the plan names."""
    if plan.start is None:
        expected = weights_digest(initial_weights(plan))
        says = "the weights that the plan's seed gives"
    else:
        expected, says = plan.start, f"the model {plan.start[:_DIGITS]} that the plan names"
    data = folder.read(START_FILE)

    def holds() -> None:
        _same("start", expected, provenance.start)
        if data is not None:
            _same(START_FILE, expected, weights_digest(loaded_weights(data, START_FILE)))

    return _look("start", holds, says)


def _look_at_sums(folder: ModelFolder, provenance: Provenance, plan: FederationPlan) -> Check:
    """Compute the weights again from the first ones and the sums, and compare them bit for bit."""
    if not folder.has_sums:
        return Check("sums", None, "not in the folder: the weights were not computed again")
    if plan.start is None:
        first = initial_weights(plan)
    elif (data := folder.read(START_FILE)) is not None:
        first = loaded_weights(data, START_FILE)
    else:
        return Check("sums", holds=False, says=f"{START_FILE} is not there: nothing to begin from")
    return _look(
        "sums",
        lambda: _same("weights", provenance.weights, _computed(folder, provenance, plan, first)),
        f"{len(provenance.rounds)} sums from the first weights give these, bit for bit",
    )


def _computed(
    folder: ModelFolder, provenance: Provenance, plan: FederationPlan, first: Weights
) -> str:
    """Digest of what the sums lead to."""
    check_weights(first, plan)
    state = ModelState(first)
    for each in provenance.rounds:
        state = advance(state, plan, _sum_of(folder, provenance.run, each))
    return state.digest


def _sum_of(folder: ModelFolder, run: str, each: RoundSum) -> Sum:
    name = sum_name(each.round)
    data = folder.sum_of(each.round)
    if data is None:
        raise _other(name, "the sum of this round", "no such file")
    if sum_digest(data) != each.sum_sha256:
        raise _other(name, f"digest {each.sum_sha256[:_DIGITS]}", "another digest")
    total = decode_sum(data)
    update = total.group(ModelUpdate.__name__)
    said = (total.run, total.round, update.members, update.summand.counts["samples"])
    if said != (run, each.round, each.sites, each.samples):
        raise _other(name, "run, round, sites and samples of the provenance", "others")
    return total


def _same(field: str, expected: str, got: str) -> None:
    if expected != got:
        raise _other(field, f"{expected[:_DIGITS]}", f"{got[:_DIGITS]}")


def _other(field: str, expected: str, got: str) -> VerificationError:
    return VerificationError("does not agree", field=field, expected=expected, got=got)
