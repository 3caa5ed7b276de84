"""The straight road from an opened order to a released answer.

Trust, admit, derive, study, tag, release: in this order, and none of them earlier. An
order proves nothing before its signature does; a plan is held against this site's bounds
before anything is computed for it; no image is opened before the sums hold; a study gets
only what this site derived itself. Whatever stops on the way leaves as a number.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import partial

from common.crypto.keyed import FederationKey
from common.errors import RefusedError, VerificationError
from common.ledger.durable import StorageError
from common.ledger.log import Ledger
from common.ledger.recovery import LostTailError
from common.policy import Policy, check_phase, check_plan, read_policy
from common.settings import KINDS
from common.sums.derivation import CheckMembers, Derived, begin, follow, require_codec_follows
from common.wire.codes import EXPLANATIONS, ReplyCode
from common.wire.envelope import Envelope
from common.wire.orders import Order, check_order
from site_client.decisions.standing import Standing
from site_client.egress.gate import SiteExpected
from site_client.egress.release import Door, SilencedError
from site_client.files import write_atomically
from site_client.heldout.errors import note_errors
from site_client.keys.directory import note_roster
from site_client.keys.ring import KeyRing
from site_client.keys.roster import require_in_sum, require_known
from site_client.plans.approval import PlanWaitsError, require_approved
from site_client.plans.waiting import note_waiting
from site_client.restoring import note_lost
from site_client.site import SiteFolder
from site_client.trouble import clear_trouble
from site_client.witnesses.asking import WitnessInquiry
from site_client.witnesses.rule import require_witnessed
from site_client.worker.chain_file import ChainFile
from site_client.worker.experience import familiar_places
from site_client.worker.failures import (
    NoKeyError,
    PolicyError,
    RestoreWaitsError,
    StoppedError,
    UntrustedError,
)
from site_client.worker.models import Models
from site_client.worker.order import Opened
from site_client.worker.refusals import refuse
from site_client.worker.setup import Keys, expect, sketch_spec
from site_client.worker.studies import Studies, states_of
from site_client.worker.study import Assignment, Progress, weights_bytes
from site_client.worker.tagging import tagged
from site_client.worker.turns import RunStoppedError, Turns

LOG = logging.getLogger("cairn.worker")


class Answering:
    """Answers orders, one after the other.

    Args:
        site: the site's folder.
        keys: of the worker.
        ledger: of the site, open.
        door: the only way out.
        standing: what people of the site decided; others follow the ledger with it.
        progress: told what is being done; may raise ``StoppedError``.
        witnesses: third ones, if the site has named any.
    """

    def __init__(
        self,
        site: SiteFolder,
        keys: Keys,
        ledger: Ledger,
        door: Door,
        standing: Standing,
        progress: Progress,
        witnesses: WitnessInquiry | None = None,
    ) -> None:
        self._site = site
        self._settings = site.settings()
        self._keys = keys
        self._ledger = ledger
        self._door = door
        self._standing = standing
        self._witnesses = witnesses
        self._ring = KeyRing(site)
        self._models = Models(site.worker / "models")
        self._studies = Studies(site, self._settings.site, progress)
        self.turns = Turns(site.worker / "turn.json", door.is_stopped)

    def respond(self, opened: Opened) -> ReplyCode:
        """Answer an order with its records, or with a number, through the door.

        Returns:
            The number that was told; ``OK`` for an answer.

        Raises:
            StoppedError: asked to stop; the order is still to be answered.
            StorageError: the ledger could not record.
            InputDataError: the site's policy cannot be read.
        """
        order = opened.order
        policy = read_policy(self._site.policy_file)
        key = self._ring.of_run(order.header.run)
        expected = expect(order, self._settings.site, policy, key)
        try:
            self._trust(opened)
            self._keep_turn(opened)
            if self._was_answered(opened):
                return ReplyCode.OK
            check_order(order)
            code = self._answer(opened, expected)
        except (StoppedError, StorageError):
            raise
        except SilencedError as error:
            LOG.error("%s: %s", order.name, error)  # noqa: TRY400
            self._studies.forget()
            return ReplyCode.REFUSED_AT_DOOR
        except Exception as error:
            # Whatever it was: its text stays here and its number leaves.
            LOG.exception("%s failed", order.name)
            self._studies.forget()
            return refuse(self._site, self._door, opened, expected, error)
        if code is not ReplyCode.OK:
            LOG.error("%s: %s", order.name, EXPLANATIONS[code])
            # What was refused may be broken inside, too: the next round starts before it.
            self._studies.forget_round(order)
        elif order.plan.kind != "no-op":  # which opens no image, and so proves nothing of them
            clear_trouble(self._site, order.plan.kind)
        return code

    def forget(self) -> None:
        """Make the next order's study anew: the one in hand was left in the middle."""
        self._studies.forget()

    def _trust(self, opened: Opened) -> None:
        """Verify that the order is the aggregator's, and so is the receipt that came with it.

        Raises:
            UntrustedError: one of them is not.
            RestoreWaitsError: the receipt is of records that this ledger has lost.
        """
        try:
            if opened.fault is not None:
                raise opened.fault
            for rotation in opened.rotations:
                newest = self._ledger.rotate_witness(rotation, self._keys.witness)
                write_atomically(self._site.witness_key, f"{newest.text}\n".encode("ascii"))
                LOG.warning("the aggregator's key is now %s", newest.fingerprint[:16])
            if opened.receipt is None:
                self._ledger.shown_nothing()
            else:
                self._ledger.add_receipt(opened.receipt, self._keys.witness)
        except LostTailError as error:
            header = opened.order.header
            note_lost(self._site, error.note, header.run, header.round, self._ledger.size)
            LOG.error("%s", error)  # noqa: TRY400 - its text is ours, and says it all
            raise RestoreWaitsError from error
        except VerificationError as error:
            raise UntrustedError(str(error)) from error

    def _keep_turn(self, opened: Opened) -> None:
        """Go on only with the run whose turn it is; record the end of one that was stopped.

        Raises:
            TurnOverError: it is a later run's turn, or this one was stopped before.
            RunStoppedError: this is the word that stops it, and it is recorded now.
        """
        if opened.stop is not None:
            self._door.record_stop(opened.order.header.run, opened.stop)
            raise RunStoppedError("run", "one that goes on", "one that was stopped")
        self.turns.hear(opened.turn)
        self.turns.require(opened.turn)

    def _was_answered(self, opened: Opened) -> bool:
        """Give the same answer again to an order that had one, whatever would be said today."""
        question = opened.question
        if not (self._door.replay(question) or self._door.replay(question.of_parcel)):
            return False
        LOG.info("%s was answered before; the same answer again", opened.order.name)
        return True

    def _answer(self, opened: Opened, expected: SiteExpected) -> ReplyCode:
        """Work on an order that is trusted, new and in its place; let its records out."""
        order = opened.order
        self._admit(opened, expected)
        key = self._key_of(order.header.run)
        assignment = Assignment(order, self._derive(order, key, expected.policy))
        study = self._studies.study_of(order, key, expected.policy)
        answer = study.answer(assignment)
        if order.header.phase == "train":
            # Before the release: a crash between the two must not lose the round's state.
            self._studies.save_round(order, study)
        if order.header.phase == "evaluate" and assignment.derived.model is not None:
            spec = sketch_spec(order.plan, key)
            self._models.keep(
                assignment.derived.model.weights,
                order.plan,
                order.header.run,
                datetime.now(UTC),
                answer,
                study.own_weights(),
                familiar_places(order.plan, spec, assignment.derived.model),
            )
        answer = tagged(answer, key, assignment.derived.link)
        code = self._door.release(opened.question, answer, expected)
        if code is ReplyCode.OK:
            self._note_errors(order, answer)
        return code

    def _note_errors(self, order: Order, envelopes: list[Envelope]) -> None:
        """Keep what was told of errors; it has left, so a full disk changes nothing."""
        try:
            note_errors(self._site, envelopes, KINDS[order.plan.task.kind].unit)
        except OSError as problem:
            LOG.warning("%s: no note of its errors: %s", order.name, problem)

    def _admit(self, opened: Opened, expected: SiteExpected) -> None:
        """Everything that stands between an order and the first image, cheapest first.

        Raises:
            PolicyError: the site's bounds do not allow it.
            RefusedError: with a number of its own: another plan or an earlier round of a
                run, too few known sites, a budget that is spent, a plan that waits for a
                person or was declined; a witness that contradicts, or too few who have seen.
        """
        order = opened.order
        policy, plan = expected.policy, order.plan
        self._door.require_new(expected)
        if self._witnesses is not None:
            require_witnessed(self._witnesses.standing, policy, self._ledger)
        try:
            check_plan(policy, plan, weights_bytes=weights_bytes(plan))
            check_phase(policy, plan, expected.phase)
        except RefusedError as error:
            raise PolicyError(str(error)) from error
        # Sites that joined by mail hear of the others here; noted before they are refused.
        note_roster(self._site, order.fingerprints)
        require_known(
            order.fingerprints,
            self._settings.site,
            self._standing.fingerprints,
            policy.peers.least_known,
            own_key=self._keys.ledger.public.fingerprint,
        )
        try:
            require_approved(policy, self._standing, plan)
        except PlanWaitsError:
            digest = opened.question.order_sha256
            note_waiting(self._site, plan, order.header.run, digest, datetime.now(UTC))
            raise

    def _key_of(self, run: str) -> FederationKey:
        """Return the federation key with which a run is finished once it has begun.

        Raises:
            NoKeyError: none has come to this site.
        """
        self._ring.begin_run(run)
        key = self._ring.of_run(run)
        if key is None:
            raise NoKeyError("sums are proved under the federation key, and none has come yet")
        return key

    def _derive(self, order: Order, key: FederationKey, policy: Policy) -> Derived:
        """Derive what the run has come to, from what is known here and the sums beside the order.

        Raises:
            ForgedSumError, BehindError, UnknownPeersError, UnknownStartError: nothing can
                be derived; what was known stays.
        """
        header, plan = order.header, order.plan
        file = ChainFile(states_of(self._site, order).folder, plan, header)
        check_members, start = self._rule_of_members(order, policy), None
        if plan.start is not None and not file.exists():
            start = self._models.start_of(plan, policy, order.start)
        latest = file.load() or begin(plan, header, start)
        derived = follow(latest, plan, header, order.sums, key, check_members)
        require_codec_follows(derived, plan, header)
        # Merged tables of pixels are not kept: the order that brings them is worked on anew.
        if derived.tables is None:
            file.save(derived)
        return derived

    def _rule_of_members(self, order: Order, policy: Policy) -> CheckMembers:
        """Return the rule of which sites may stand behind a sum of this order's run."""
        return partial(
            require_in_sum,
            roster=order.fingerprints,
            site=self._settings.site,
            confirmed=self._standing.fingerprints,
            least_in_sum=policy.peers.least_in_sum,
            quorum=order.plan.rounds.quorum,
        )
