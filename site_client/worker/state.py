"""A worker's state of a run, so that a killed one goes on bit for bit.

One safetensors file per trained round under ``worker/state/<run>/``, whole or
absent. The last two are kept: the state *before* a round must survive until the
round's answer is recorded, because a round that was interrupted is trained again
from there, or from the state *within* it that was saved last. Nothing in this folder
leaves the site.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from common.errors import InternalError
from site_client.files import write_atomically

KEPT = 2
LOG = logging.getLogger("cairn.worker")
_FINGERPRINT = "plan/fingerprint"
_WITHIN = "within.safetensors"
_PLACE = "within/place"


@dataclass(frozen=True)
class SavedStates:
    """The states of one run.

    Attributes:
        root: ``worker/state`` of the site.
        run: name of the run.
        fingerprint: of its plan; a state of another plan is never loaded.
    """

    root: Path
    run: str
    fingerprint: str

    @property
    def folder(self) -> Path:
        """Folder of this run's files."""
        return self.root / self.run

    def save(self, round_: int, state: dict[str, NDArray[np.generic]]) -> None:
        """Keep the state after a round, and of the earlier ones only the newest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        marked = {name: np.asarray(array, order="C") for name, array in state.items()}
        marked[_FINGERPRINT] = np.frombuffer(bytes.fromhex(self.fingerprint), np.uint8)
        write_atomically(self._path(round_), safetensors.numpy.save(marked))
        for old in self._rounds()[:-KEPT]:
            self._path(old).unlink()
        self._within.unlink(missing_ok=True)

    def save_within(self, place: str, state: dict[str, NDArray[np.generic]]) -> None:
        """Keep the state in the middle of a round.

        Args:
            place: digest of what the round starts from, 64 hex digits: run, round, history.
            state: everything that is needed to go on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        marked = {name: np.asarray(array, order="C") for name, array in state.items()}
        marked[_FINGERPRINT] = np.frombuffer(bytes.fromhex(self.fingerprint), np.uint8)
        marked[_PLACE] = np.frombuffer(bytes.fromhex(place), np.uint8)
        write_atomically(self._within, safetensors.numpy.save(marked))

    def load_within(self, place: str) -> dict[str, NDArray[np.generic]] | None:
        """Return what was saved in the middle of this very round; None without any.

        A file that cannot be read costs the time since the round began, and nothing else.
        """
        try:
            state = dict(safetensors.numpy.load(self._within.read_bytes()))
            marks = [np.asarray(state.pop(name)).tobytes().hex() for name in (_FINGERPRINT, _PLACE)]
        except FileNotFoundError:
            return None
        except (OSError, safetensors.SafetensorError, KeyError) as error:
            LOG.warning("%s cannot be read (%s): the round begins anew", self._within, error)
            return None
        return state if marks == [self.fingerprint, place] else None

    def last_before(self, round_: int) -> int:
        """Return the newest round before ``round_`` of which a state is kept; 0 without any."""
        return max((number for number in self._rounds() if number < round_), default=0)

    def load_before(self, round_: int) -> tuple[int, dict[str, NDArray[np.generic]]] | None:
        """Return the newest state from before ``round_``, as (its round, state).

        Raises:
            InternalError: the file is damaged or of another plan.
        """
        newest = self.last_before(round_)
        if newest == 0:
            return None
        path = self._path(newest)
        try:
            state = dict(safetensors.numpy.load(path.read_bytes()))
            fingerprint = np.asarray(state.pop(_FINGERPRINT)).tobytes().hex()
        except (safetensors.SafetensorError, KeyError) as error:
            raise _unusable(path, "a whole state", type(error).__name__) from error
        if fingerprint != self.fingerprint:
            raise _unusable(path, "the state of this plan", "another plan's")
        return newest, state

    def forget(self, round_: int) -> None:
        """Remove the state after a round whose answer was refused: it is not to be built on."""
        self._path(round_).unlink(missing_ok=True)
        self._within.unlink(missing_ok=True)

    def forget_other_runs(self) -> None:
        """Forget the states of other runs: a new run starts fresh, and old ones are not kept."""
        if self.root.is_dir():
            for folder in self.root.iterdir():
                if folder.is_dir() and folder.name != self.run:
                    shutil.rmtree(folder)

    @property
    def _within(self) -> Path:
        return self.folder / _WITHIN

    def _path(self, round_: int) -> Path:
        return self.folder / f"round-{round_:06d}.safetensors"

    def _rounds(self) -> list[int]:
        return sorted(
            int(path.stem.removeprefix("round-"))
            for path in self.folder.glob("round-*.safetensors")
        )


def _unusable(path: Path, expected: str, got: str) -> InternalError:
    return InternalError(
        "the worker's saved state cannot be used",
        field=path.name,
        expected=expected,
        got=got,
        advice="Remove worker/state and start a new run",
    )
