"""The models that this site's runs came to, each a folder that ``evaluate`` and ``play`` open.

A site computes the weights of a run itself, from sums that it verified, so nothing needs to
be sent to it. A folder is data: safetensors and JSON, named by the digest of its weights, with
the errors that this site measured. Knows no door, no ledger and no network, and nothing here
leaves the site.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.checkpoint import (
    ABOUT_FILE,
    MODEL_FILE,
    about_checkpoint,
    names_of,
    planned_config,
    saved,
)
from common.errors import InputDataError, UsageError
from common.model import Weights, weights_digest
from common.plan import FederationPlan
from common.settings import KINDS
from site_client.files import write_atomically

LATEST: Final = "latest"
LEAST_DIGITS: Final = 8
PLAN_FILE: Final = "plan.json"
KEPT_FILE: Final = "kept.json"
_FOLDER: Final = Path("worker", "models")
_DIGITS: Final = re.compile(r"[0-9a-f]{8,64}")
_WHOLE: Final = re.compile(r"[0-9a-f]{64}")

Digest = Annotated[str, Field(pattern=_WHOLE.pattern)]


class _KeptWords(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeptError(_KeptWords):
    """This site's measurement of a model, of one thing that is looked for.

    Attributes:
        label: of it.
        part: of the site's own cases.
        searches: behind the figures.
        mean, prior: error and that of the answer that never looks, in the model's unit.
    """

    label: str
    part: Literal["held-out", "training"]
    searches: int
    mean: float
    prior: float


class Kept(_KeptWords):
    """One model that a run at this site came to: ``kept.json``.

    Attributes:
        weights: digest of the weights; the folder's name.
        run, plan, plan_name: of what it came.
        task, looks_for, unit: what it is for; the unit of its errors.
        at: when it was kept.
        images: that this site measured it on and trained on.
        errors: as measured here; none of a run without an evaluation.
    """

    v: Literal[1] = 1
    weights: Digest
    run: str
    plan: Digest
    plan_name: str
    task: str
    looks_for: tuple[str, ...]
    unit: str
    at: datetime
    images: int = 0
    errors: tuple[KeptError, ...] = ()

    @property
    def errors_by_part(self) -> dict[str, tuple[float, float]]:
        """Mean error and prior over everything, weighted by searches, of each part."""
        parts = {}
        for part in ("held-out", "training"):
            rows = [e for e in self.errors if e.part == part and e.searches]
            if rows:
                total = sum(e.searches for e in rows)
                parts[part] = (
                    sum(e.searches * e.mean for e in rows) / total,
                    sum(e.searches * e.prior for e in rows) / total,
                )
        return parts


@dataclass(frozen=True)
class KeptModels:
    """The models in one folder, one folder each."""

    root: Path

    @classmethod
    def of_site(cls, site: Path) -> KeptModels:
        """Find the models in a site's folder."""
        return cls(site / _FOLDER)

    def place(self, digest: str) -> Path:
        """Return the folder of the model with these weights."""
        return self.root / digest

    def weights_file(self, digest: str) -> Path:
        """Return the file of the weights with this digest."""
        return self.place(digest) / MODEL_FILE

    def each(self) -> list[Kept]:
        """List what is kept, newest first; a folder that is not whole is passed over."""
        matching = []
        for path in self.root.glob(f"*/{KEPT_FILE}"):
            if _WHOLE.fullmatch(path.parent.name) is None:
                continue  # being written, or left by a crash
            try:
                kept = Kept.model_validate_json(path.read_bytes())
            except (OSError, ValidationError):
                continue
            if kept.weights == path.parent.name:
                matching.append(kept)
        return sorted(matching, key=lambda kept: kept.at, reverse=True)

    def write(
        self,
        weights: Weights,
        plan: FederationPlan,
        kept: Kept,
        most: int,
        beside: Mapping[str, bytes] | None = None,
    ) -> None:
        """Keep a model, whole or not at all, and of the older ones only the newest.

        Args:
            weights: its.
            plan: that it is of.
            kept: what else is known of it.
            most: models that are kept, at least 1.
            beside: further files of the folder, by name.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for stale in self.root.glob(".*"):
            shutil.rmtree(stale, ignore_errors=True)
        fresh = self.root / f".{kept.weights}.{uuid.uuid4().hex}"
        fresh.mkdir(mode=0o700)
        model = saved(weights)
        updates = plan.learner.updates if plan.kind == "training" else 0
        about = about_checkpoint(
            model,
            planned_config(plan),
            names_of(plan),
            origin=f"federated run {kept.run}",
            updates=updates,
        )
        write_atomically(fresh / MODEL_FILE, model)
        write_atomically(fresh / ABOUT_FILE, about)
        write_atomically(fresh / PLAN_FILE, plan.canonical())
        for name, data in (beside or {}).items():
            write_atomically(fresh / name, data)
        write_atomically(fresh / KEPT_FILE, kept.model_dump_json(indent=1).encode() + b"\n")
        # Written again, too: what a run came to anew is new, and whole whatever lay there.
        shutil.rmtree(self.place(kept.weights), ignore_errors=True)
        fresh.rename(self.place(kept.weights))
        for old in self.each()[most:]:
            shutil.rmtree(self.place(old.weights), ignore_errors=True)

    def find(self, words: str) -> Path:
        """Return the folder of the model that a person means.

        Args:
            words: ``latest``, the beginning of a digest, or a folder anywhere.

        Raises:
            UsageError: several models begin like that.
            InputDataError: there is none.
        """
        if words == LATEST:
            newest = self.each()[:1]
            return self.place(newest[0].weights) if newest else self._nothing(words)
        if Path(words).is_dir():
            return Path(words)
        if _DIGITS.fullmatch(words) is None:
            return self._nothing(words)
        matching = [kept.weights for kept in self.each() if kept.weights.startswith(words)]
        if len(matching) > 1:
            raise UsageError(
                "several models begin like that",
                field="model",
                expected="more digits of one digest",
                got=f"{len(matching)} models",
            )
        return self.place(matching[0]) if matching else self._nothing(words)

    def _nothing(self, words: str) -> NoReturn:
        raise InputDataError(
            "no such model",
            field="model",
            expected=f"{LATEST}, {LEAST_DIGITS} digits or more of a digest, or a model's folder",
            got=f"{words!r}, with {len(self.each())} models in {self.root}",
            advice="`cairn-site models --site-dir SITE` lists what this site's runs came to",
        )


def what_came(
    weights: Weights,
    plan: FederationPlan,
    run: str,
    at: datetime,
    images: int = 0,
    errors: tuple[Mapping[str, object], ...] = (),
) -> Kept:
    """Describe what a run came to.

    Args:
        weights: its.
        plan: of the run.
        run: its name.
        at: when.
        images: that this site has for it.
        errors: fields of the site's own report of errors; ``part`` is training where unsaid.
    """
    return Kept(
        weights=weights_digest(weights),
        run=run,
        plan=plan.fingerprint,
        plan_name=plan.name,
        task=plan.task.kind,
        looks_for=plan.space.labels,
        unit=KINDS[plan.task.kind].unit,
        at=at,
        images=images,
        errors=tuple(_error(error) for error in errors),
    )


def _error(told: Mapping[str, object]) -> KeptError:
    return KeptError.model_validate(
        {
            "label": told["label"],
            "part": told.get("part", "training"),
            "searches": told["searches"],
            "mean": float(str(told["mean_milli"])) / 1000,
            "prior": float(str(told["prior_milli"])) / 1000,
        }
    )
