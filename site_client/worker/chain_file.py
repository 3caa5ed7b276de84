"""The derived state of a run on the worker's disk: one file, whole or absent.

A worker that was killed goes on from here with the next order's sum; a site that was
away for rounds needs the sums from here on and no others. Merged tables of pixels are
not kept: they come with the one order that reads them. Nothing here leaves the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import CairnError, InternalError
from common.model import Weights
from common.plan import FederationPlan
from common.sums.addition import MOST_SITES
from common.sums.derivation import Derived
from common.sums.summand import Summand
from common.sums.training import ModelState
from common.wire.envelope import Array, pack, unpack
from common.wire.orders import OrderHeader
from common.wire.records import Count, Digest, SiteName
from site_client.files import write_atomically
from site_client.worker.failures import ChangedRunError

FILE = "chain.safetensors"
_TABLES = ("table", "errors")
_SUMMANDS = ("survey", "ranges")


class _ChainHeader(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    plan: Digest
    roster: Digest
    round: Count
    link: Digest
    applied: Digest | Literal[""]
    members: Annotated[tuple[SiteName, ...], Field(max_length=MOST_SITES, strict=False)] = ()
    total: Count = 0
    error: Count = 0
    counts: Annotated[dict[str, dict[str, Count]], Field(max_length=len(_SUMMANDS))] = {}


class ChainFile:
    """The chain of one run.

    Args:
        folder: of the run, below ``worker/state``.
        plan: of the run.
        header: of any of its orders; its roster must not change.
    """

    def __init__(self, folder: Path, plan: FederationPlan, header: OrderHeader) -> None:
        self._path = folder / FILE
        self._plan = plan.fingerprint
        self._roster = header.roster_sha256

    def save(self, derived: Derived) -> None:
        """Keep what the run has come to, in place of what was kept."""
        arrays: dict[str, Array] = {}
        counts: dict[str, dict[str, int]] = {}
        model = derived.model
        if model is not None:
            arrays |= {f"weights/{n}": a for n, a in model.weights.items()}
            arrays |= {f"velocity/{n}": a for n, a in model.velocity.items()}
            if model.table is not None:
                arrays["table"] = model.table
            if model.errors is not None:
                arrays["errors"] = model.errors
        for name in _SUMMANDS:
            summand: Summand | None = getattr(derived, name)
            if summand is not None:
                arrays |= {f"{name}/{n}": a for n, a in summand.arrays.items()}
                counts[name] = dict(summand.counts)
        header = _ChainHeader(
            plan=self._plan,
            roster=self._roster,
            round=derived.round,
            link=derived.link,
            applied=derived.applied,
            members=derived.members,
            total=0 if model is None else model.total,
            error=0 if model is None else model.error,
            counts=counts,
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, pack(header.model_dump(mode="json"), arrays))

    def exists(self) -> bool:
        """Tell whether anything of the run is kept."""
        return self._path.exists()

    def load(self) -> Derived | None:
        """Read what was kept; None where nothing was.

        Raises:
            ChangedRunError: the run had another plan, or other sites then.
            InternalError: the file is damaged.
        """
        try:
            metadata, arrays = unpack(self._path.read_bytes())
            header = _ChainHeader.model_validate(metadata)
        except FileNotFoundError:
            return None
        except (CairnError, ValidationError) as error:
            raise InternalError(
                "what a run has come to cannot be read",
                field=self._path.name,
                expected="what was written",
                got="something else",
                advice="Remove worker/state: the aggregator sends the sums of the run anew",
            ) from error
        # The ledger knows only runs of which something was answered; this file knows of all.
        if header.plan != self._plan:
            raise ChangedRunError("plan", "the plan that the run began with", "another")
        if header.roster != self._roster:
            raise ChangedRunError("roster", "the sites that the run began with", "others")
        weights = _below("weights", arrays)
        model = None
        if weights:
            tables = {n: np.asarray(arrays[n], np.int64) for n in _TABLES if n in arrays}
            velocity = _below("velocity", arrays)
            model = ModelState(weights, velocity, total=header.total, error=header.error, **tables)
        summands = {
            name: Summand(
                counts,
                {
                    n.removeprefix(f"{name}/"): np.asarray(array, np.int64)
                    for n, array in arrays.items()
                    if n.startswith(f"{name}/")
                },
            )
            for name, counts in header.counts.items()
        }
        return Derived(
            header.round,
            header.link,
            header.applied,
            model,
            **summands,
            members=header.members,
        )


def _below(prefix: str, arrays: Mapping[str, Array]) -> Weights:
    return {
        name.removeprefix(f"{prefix}/"): np.asarray(array, np.float32)
        for name, array in arrays.items()
        if name.startswith(f"{prefix}/")
    }
