"""What a pass over slides was asked, in a file that the shards of a pass read.

The worker writes it when an order comes. Then it counts by itself, or waits until
``cairn-site pixels merge`` has put the shards together. Results of another pass are
removed when a pass begins, and all when the run has named its keys: they hold keys.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from common.arrivals.files import read_bounded
from common.arrivals.texts import json_of
from common.canonical import canonical_json
from common.errors import InputDataError
from common.keys.pixel_agreement import AnyCodec, codec_text, family, read_codec, require_planned
from common.plan import FederationPlan, parse_plan
from common.sketching import SketchSpec
from site_client.files import remove_whatever, write_atomically

if TYPE_CHECKING:
    from site_client.pixels.checkpoints import Bond
    from site_client.pixels.passes import Found, SlidePass
    from site_client.pixels.shards import Listed

RESULTS: Final = "pixels"
ASKED: Final = "asked.json"
PHASES: Final = ("survey", "range", "sketch")
_MOST: Final = 1 << 22
_PATIENCE: Final = 1.0  # seconds between two looks for the merged shards

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SlideTask:
    """One phase of a run of pixels.

    Attributes:
        plan: of the run.
        phase: survey, range or sketch.
        codec: that the order brought; None in a survey.
    """

    plan: FederationPlan
    phase: str
    codec: AnyCodec | None

    def slide_pass(self, spec: SketchSpec, folder: Path, threads: int) -> SlidePass:
        """Return the pass that answers it.

        Args:
            spec: of the sketches, with the key.
            folder: where slides' results are kept.
            threads: that count.
        """
        from site_client.pixels.passes import SlidePass

        return SlidePass(self._bond(spec), self.plan.pixels, self.codec, spec, folder, threads)

    def _bond(self, spec: SketchSpec) -> Bond:
        from site_client.pixels.checkpoints import Bond

        identity = family(self.plan) if self.codec is None else self.codec.identity
        return Bond(self.plan.fingerprint, self.phase, identity, spec.key_id, spec.key or b"")

    def begin(self, worker: Path, spec: SketchSpec) -> Path:
        """Say what is asked, and forget every other pass; returns the folder of its results.

        Args:
            worker: the worker's folder.
            spec: of the sketches, with the key.

        Raises:
            OSError: the folder cannot be written.
        """
        name = self._bond(spec).name
        forget_passes(worker, but=name)
        results = worker / RESULTS
        results.mkdir(parents=True, exist_ok=True, mode=0o700)
        document = {
            "codec": None if self.codec is None else codec_text(self.codec),
            "phase": self.phase,
            "plan": json.loads(self.plan.canonical()),
        }
        write_atomically(results / ASKED, canonical_json(document))
        return results / name


def read_asked(results: Path) -> SlideTask:
    """Read what a worker was asked.

    Raises:
        InputDataError: nothing is asked, or it cannot be read.
    """
    path = results / ASKED
    try:
        document = json_of(read_bounded(path, _MOST, "what is asked"))
    except (OSError, ValueError) as error:
        raise InputDataError(
            "nothing is asked of this site's slides",
            field=str(path),
            expected="an order of a pixels run that the worker is at",
            got="none",
            advice="Name plan, phase and codec by options, or wait for the order",
        ) from error
    if not isinstance(document, dict) or {*document} != {"codec", "phase", "plan"}:
        raise InputDataError(
            "cannot read what is asked", field=str(path), expected="codec, phase, plan", got="else"
        )
    codec = None if document["codec"] is None else read_codec(str(document["codec"]))
    return slide_task(parse_plan(document["plan"]), str(document["phase"]), codec)


def slide_task(plan: FederationPlan, phase: str, codec: AnyCodec | None) -> SlideTask:
    """Return a task whose parts fit together.

    Raises:
        InputDataError: a plan of another kind, a codec that is not the plan's, or a phase
            without what it needs.
    """
    if plan.kind != "pixels":
        raise InputDataError(
            "this plan counts no pixels", field="kind", expected="pixels", got=plan.kind
        )
    if phase not in PHASES or (codec is None) != (phase == "survey"):
        raise InputDataError(
            "phase and codec do not fit together",
            field="phase",
            expected="survey without a codec; range or sketch with the codec of the order",
            got=f"{phase} {'without' if codec is None else 'with'} a codec",
        )
    if codec is not None:
        require_planned(codec, plan.pixels)
    return SlideTask(plan, phase, codec)


def forget_passes(worker: Path, but: str = "") -> None:
    """Remove the results of all passes, but perhaps of one."""
    results = worker / RESULTS
    for path in results.iterdir() if results.is_dir() else ():
        if path.name.partition(".")[0] != but:
            remove_whatever(path)


def forget_asked(worker: Path) -> None:
    """Take back what was asked: it is answered, and shards of it would be of no use."""
    (worker / RESULTS / ASKED).unlink(missing_ok=True)


def merged_file(folder: Path) -> Path:
    """Where the merged shards of a pass lie, beside the folder of its slides' results."""
    return folder.with_name(f"{folder.name}.merged")


def wait_for_shards(
    whole: SlidePass, slides: Callable[[], Sequence[Listed]], progress: Progress | None
) -> tuple[Found, int]:
    """Wait until the shards are merged; what they hold together, and of how many slides.

    Args:
        whole: the pass.
        slides: list of the slides as they lie there now.
        progress: told every second that nothing came yet; may raise to leave the order.

    Raises:
        InputDataError: the merged result is damaged, of other counting or of other slides.
    """
    from site_client.pixels.shards import read_merged

    place = merged_file(whole.folder)
    while not place.exists():
        if progress is not None:
            progress("waiting for the shards of this phase", 0, 1)
        time.sleep(_PATIENCE)
    now = slides()
    return read_merged(whole, place, now), len(now)
