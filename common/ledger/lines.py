"""The lines of a log, one at a time, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Self

from common.errors import VerificationError
from common.ledger.reading import IrregularError, open_regular
from common.ledger.records import MAX_LINE_BYTES


class LogLines:
    """Reads a log; a longer line than a record may have ends it."""

    def __init__(self, stream: BinaryIO | None) -> None:
        self._stream = stream
        self._torn = b""

    @classmethod
    @contextmanager
    def open(cls, path: Path, at_most: int) -> Iterator[Self]:
        """Open a log; without a file it has no lines.

        Raises:
            IrregularError: no plain file, or larger than ``at_most``.
            InputDataError: it may not be read.
        """
        with ExitStack() as open_files:
            try:
                descriptor = open_files.enter_context(open_regular(path, "log"))
            except FileNotFoundError:
                yield cls(None)
                return
            if os.fstat(descriptor).st_size > at_most:
                raise IrregularError("the log is larger than any log", field=path.name)
            yield cls(open_files.enter_context(os.fdopen(descriptor, "rb", closefd=False)))

    def read(self) -> bytes | None:
        """Return the next whole line without its end, or None: what is left is no whole line.

        Raises:
            VerificationError: longer than any record.
        """
        line = self._next()
        if line.endswith(b"\n"):
            return line[:-1]
        if len(line) > MAX_LINE_BYTES:
            raise VerificationError("a line of the log is longer than any record")
        self._torn = line
        return None

    def rest(self) -> bytes:
        """Return what follows, up to the end of one line."""
        torn, self._torn = self._torn, b""
        return torn or self._next()

    def more(self) -> bool:
        """Tell whether anything follows what was read."""
        return self._stream is not None and bool(self._stream.read(1))

    def _next(self) -> bytes:
        return b"" if self._stream is None else self._stream.readline(MAX_LINE_BYTES + 1)
