"""One boundary around whatever is made of one thing that arrived.

What a reader declares passes through. What nobody has declared becomes a declared refusal
of that one thing, with a code that stays the same for the same place in this code, so that
two people can speak of it. Its text stays out: it could quote anything. Only the wish to
stop (``KeyboardInterrupt``, ``SystemExit``) is never held up.
"""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from common.errors import CairnError, ExitCode

LOG = logging.getLogger("cairn.arrivals")
_STOPPING: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)
_OURS: Final = ("common", "site_client", "aggregator")


class UnforeseenError(CairnError):
    """Something that arrived failed in a way that nobody had declared; please report its code.

    Args:
        what: arrived, in words.
        code: of the failure.
    """

    exit_code = ExitCode.INTERNAL

    def __init__(self, what: str, code: str) -> None:
        super().__init__(
            "something that arrived failed in a way that nobody foresaw",
            field=what,
            got=code,
            advice="It was put aside and everything else goes on; please report the code",
        )
        self.code = code


@contextmanager
def contained(what: str, *passing: type[Exception]) -> Iterator[None]:
    """Let declared errors through; turn every other one into ``UnforeseenError``.

    Args:
        what: is worked on, in words.
        passing: further classes that the caller declares.

    Raises:
        UnforeseenError: in place of what nobody declared; the traceback is logged.
    """
    through: tuple[type[BaseException], ...] = (CairnError, *_STOPPING, *passing)
    try:
        yield
    except through:
        raise
    except BaseException as error:  # a library's panic is no Exception
        code = failure_code(error)
        LOG.exception("%s failed in a way that nobody foresaw (%s)", what, code)
        raise UnforeseenError(what, code) from error


@contextmanager
def any_failure_is(refusal: CairnError) -> Iterator[None]:
    """Take whatever a foreign reader raises for what it means: that it cannot read this.

    For one call of a library whose errors have no common class, and for nothing of ours.

    Raises:
        CairnError: ``refusal``, in place of whatever was raised.
    """
    try:
        yield
    except _STOPPING:
        raise
    except BaseException as error:
        raise refusal from error


def failure_code(error: BaseException) -> str:
    """Name a failure by its kind and by the place in this code that it came from.

    The same for every message that fails so, in every process; says no line number, so that
    it outlives small edits, and nothing of what arrived.
    """
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame.filename)
    ]
    # Endless recursion ends anywhere in its circle: where it began is the same every time.
    at = (frames[0] if isinstance(error, RecursionError) else frames[-1]) if frames else None
    place = "elsewhere" if at is None else f"{_module(at.filename)}.{at.name}"
    digest = hashlib.sha256(f"{type(error).__name__} {place}".encode()).hexdigest()[:6]
    return f"{type(error).__name__}-{digest}"


def _is_ours(filename: str) -> bool:
    return bool(_module(filename)) and not filename.endswith("boundary.py")


def _module(filename: str) -> str:
    parts = Path(filename).with_suffix("").parts
    places = [k for k, part in enumerate(parts[:-1]) if part in _OURS]
    return ".".join(parts[places[-1] :]) if places and "site-packages" not in parts else ""
