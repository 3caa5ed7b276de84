"""Models that this site itself came to at the end of a run: what a later run may start from.

A plan that starts from a model names its digest. The site starts from it only if it
computed that model, or if its staff named the digest in ``policy.toml``. The newest few
are kept; nothing here leaves the site. Of a plan that keeps heads private the model
is the part that the sites share; this site's own heads lie beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from common.errors import CairnError, InputDataError
from common.model import Weights, check_shared, weights_digest
from common.plan import FederationPlan
from site_client.egress.policy import Policy
from site_client.files import write_atomically
from site_client.worker.failures import UnknownStartError

KEPT = 20


class Models:
    """The models in a worker's folder.

    Args:
        folder: ``worker/models``; created with the first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, weights: Weights, own: Weights | None = None) -> str:
        """Keep what a run ended with, and of the older ones only the newest.

        Args:
            weights: that all its sites share.
            own: what belongs to this site alone; none in most runs.

        Returns:
            Digest of ``weights``, as records name them.
        """
        digest = weights_digest(weights)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Written again, too: what a run came to anew is new, and whole whatever lay there.
        write_atomically(self._path(digest), safetensors.numpy.save(dict(weights)))
        files = sorted(self._folder.glob("*.safetensors"), key=lambda p: p.stat().st_mtime_ns)
        for old in files[:-KEPT]:
            old.unlink()
            self._own_path(old.stem).unlink(missing_ok=True)
        if own:
            self._own_path(digest).parent.mkdir(mode=0o700, exist_ok=True)
            write_atomically(self._own_path(digest), safetensors.numpy.save(dict(own)))
        else:
            self._own_path(digest).unlink(missing_ok=True)
        return digest

    def whole(self, digest: str) -> Weights:
        """Return all weights of a model that is kept here, this site's own heads among them.

        Raises:
            InputDataError: it is not kept here, or damaged.
        """
        try:
            shared = safetensors.numpy.load(self._path(digest).read_bytes())
            path = self._own_path(digest)
            own = safetensors.numpy.load(path.read_bytes()) if path.exists() else {}
        except (OSError, safetensors.SafetensorError, ValueError) as error:
            raise InputDataError(
                "a model cannot be read",
                field=digest[:12],
                expected="one that is kept at this site",
                got=type(error).__name__,
            ) from error
        weights = {name: np.asarray(array) for name, array in shared.items()}
        if weights_digest(weights) != digest:
            raise InputDataError("a model was altered", field=digest[:12], got="another digest")
        return {**weights, **{name: np.asarray(array) for name, array in own.items()}}

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
        path = self._path(digest)
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
            weights = {n: np.asarray(a) for n, a in safetensors.numpy.load(data).items()}
            check_shared(weights, plan)
        except (safetensors.SafetensorError, InputDataError, ValueError, KeyError) as error:
            got = error.got if isinstance(error, CairnError) else "another file"
            raise UnknownStartError("start", "weights of the plan's network", got) from error
        if weights_digest(weights) != digest:
            raise UnknownStartError("start", "the model that the plan names", "another")
        return weights

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.safetensors"

    def _own_path(self, digest: str) -> Path:
        return self._folder / "own" / f"{digest}.safetensors"
