"""Models that this site itself came to at the end of a run: what a later run may start from.

A plan that starts from a model names its digest. The site starts from it only if it
computed that model, or if its staff named the digest in ``policy.toml``. The newest few
are kept, each as a folder that ``evaluate`` and ``play`` open; nothing here leaves the site.
Where a plan keeps heads private the digest is that of the part that the sites share, and
the folder holds this site's own heads, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from common.checkpoint import loaded_weights
from common.errors import InputDataError
from common.model import Weights, check_shared, shared_part, weights_digest
from common.plan import FederationPlan
from common.policy import Policy
from common.wire.envelope import Envelope
from common.wire.records import RoundReport
from site_client.agent.novelty import PLACES_FILE
from site_client.kept import KeptModels, what_came
from site_client.worker.failures import UnknownStartError

KEPT = 20


class Models:
    """The models in a worker's folder.

    Args:
        folder: ``worker/models``; created with the first.
    """

    def __init__(self, folder: Path) -> None:
        self._kept = KeptModels(folder)

    def keep(
        self,
        weights: Weights,
        plan: FederationPlan,
        run: str,
        at: datetime,
        answer: Iterable[Envelope] = (),
        own: Weights | None = None,
        places: bytes | None = None,
    ) -> str:
        """Keep what a run ended with, and of the older ones only the newest.

        Args:
            weights: that all its sites share.
            plan: of the run.
            run: its name.
            at: when.
            answer: what the site reports of it: its images and errors.
            own: what belongs to this site alone; none in most runs.
            places: map of where the federation's searches have been; none in most runs.

        Returns:
            Digest of ``weights``, as records name them.
        """
        report = next((e.record for e in answer if isinstance(e.record, RoundReport)), None)
        errors = () if report is None else report.errors
        kept = what_came(
            weights,
            plan,
            run,
            at,
            0 if report is None else report.images,
            tuple(error.model_dump(mode="json") for error in errors),
        )
        beside = {} if places is None else {PLACES_FILE: places}
        self._kept.write({**weights, **(own or {})}, plan, kept, KEPT, beside)
        return kept.weights

    def start_of(self, plan: FederationPlan, policy: Policy, brought: bytes | None) -> Weights:
        """Return the weights of the model that a plan starts from.

        Args:
            plan: names the model.
            policy: may name models that this site did not compute.
            brought: what came beside the order, for a model that is not kept here.

        Raises:
            UnknownStartError: not computed here and not named in policy.toml, or what
                came is another model.
        """
        digest = plan.start or ""
        path = self._kept.weights_file(digest)
        if path.exists():
            data = path.read_bytes()
        elif digest not in policy.plans.start_models:
            raise UnknownStartError(
                "start", "a model computed here, or one of plans.start_models", "another"
            )
        elif brought is None:
            raise UnknownStartError("start", "the model beside the order", "nothing")
        else:
            data = brought
        try:
            weights = loaded_weights(data)
            if path.exists() and plan.network.private_heads:
                weights = shared_part(weights, plan)
            check_shared(weights, plan)
        except (InputDataError, KeyError) as error:
            got = error.got if isinstance(error, InputDataError) else "another network's"
            raise UnknownStartError("start", "weights of the plan's network", got) from error
        if weights_digest(weights) != digest:
            raise UnknownStartError("start", "the model that the plan names", "another")
        return weights
