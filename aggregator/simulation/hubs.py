"""The processes that hold the made-up sites: started, asked, ended."""

from __future__ import annotations

import os
import selectors
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from common.errors import CairnError, ExitCode, InputDataError, InternalError
from common.extras import python_with
from common.simulation import HubRequest, Learner, Told, Verb, line_of, told_in

AT_ONCE: Final = 2
"""Questions that one process has at a time: it need not wait, and no folder fills up."""
STOP_S: Final = 15.0


@dataclass(frozen=True)
class SitesWanted:
    """What every process of made-up sites is told at its start.

    Attributes:
        plan: file of the plan's canonical JSON.
        folder: where each site gets its own.
        post: where orders and replies lie.
        images: of each site.
    """

    plan: Path
    folder: Path
    post: Path
    learner: Learner
    images: int
    seed: int

    def words(self) -> list[str]:
        """Return the command line.

        Raises:
            MissingExtraError: no interpreter here has what a site needs.
        """
        options: list[tuple[str, object]] = [
            ("--folder", self.folder),
            ("--post", self.post),
            ("--learner", self.learner),
            ("--images", self.images),
            ("--seed", self.seed),
        ]
        said = [str(word) for option in options for word in option]
        program = [python_with("worker"), "-P", "-m", "site_client.cli", "simulate-sites"]
        return [*program, str(self.plan), *said]


class Hubs:
    """Some processes; each site belongs to one of them. Use as a context manager.

    Args:
        sites: what they hold.
        processes: how many.
        log: file of what they complain of.
    """

    def __init__(self, sites: SitesWanted, processes: int, log: Path) -> None:
        self._sites, self._log = sites, log
        self._count = processes
        self._hubs: list[_Hub] = []
        self._looking = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        try:
            for _ in range(self._count):
                hub = _Hub(self._sites.words(), self._log)
                self._hubs.append(hub)
                self._looking.register(hub.answers, selectors.EVENT_READ, hub)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def peak_bytes(self) -> int:
        """Largest resident size that one of the processes had."""
        return max((hub.peak_bytes for hub in self._hubs), default=0)

    def ask(self, do: Verb, sites: Iterable[tuple[int, str]]) -> None:
        """Ask some sites to do something; each is told as soon as its process can take it.

        Args:
            do: what.
            sites: number and name of each; the number decides its process.
        """
        for number, site in sites:
            self._hubs[number % len(self._hubs)].waiting.append((do, site))

    def forget(self) -> None:
        """Put no question that has not been passed on yet, and wait for the others' answers."""
        for hub in self._hubs:
            hub.waiting.clear()
        while any(hub.asked for hub in self._hubs):
            list(self.told())

    def ready(self) -> Iterator[HubRequest]:
        """Yield the questions that can be passed on now; each is passed on after its turn."""
        for hub in self._hubs:
            while hub.waiting and len(hub.asked) < AT_ONCE:
                do, site = hub.waiting.popleft()
                question = HubRequest(do=do, site=site)
                yield question
                self._pass_on(hub, question)

    def told(self) -> Sequence[Told]:
        """Wait until a process has answered, and return what was told; nothing if none was asked.

        Raises:
            CairnError: a process ended by itself.
        """
        if not any(hub.asked for hub in self._hubs):
            return []
        messages = []
        for key, _ in self._looking.select():
            hub: _Hub = key.data
            messages.append(self._read(hub))
        return messages

    def _pass_on(self, hub: _Hub, question: HubRequest) -> None:
        try:
            hub.questions.write(line_of(question))
            hub.questions.flush()
        except OSError:
            raise self._ended(hub) from None
        hub.asked.append(question.site)

    def _read(self, hub: _Hub) -> Told:
        line = hub.read_line()
        if line is None:
            raise self._ended(hub)
        message = told_in(line)
        if not hub.asked or hub.asked.popleft() != message.site:
            raise InternalError("made-up sites answer out of turn", field=message.site)
        hub.peak_bytes = max(hub.peak_bytes, message.peak_bytes)
        return message

    def _ended(self, hub: _Hub) -> CairnError:
        """Say why a process is gone, in its own last words."""
        code = hub.end()
        said = [line for line in self._log.read_text("utf-8", "replace").splitlines() if line]
        bad = InputDataError if code == ExitCode.BAD_INPUT else InternalError
        return bad(
            "a process of made-up sites ended by itself",
            field="simulate-sites",
            got=f"exit status {code}",
            advice=said[-1] if said else "It said nothing",
        )

    def _end(self) -> None:
        for hub in self._hubs:
            hub.end()
        self._hubs.clear()
        self._looking.close()


class _Hub:
    """One process.

    Attributes:
        waiting: what is still to be asked, and of which site.
        asked: sites that it has not answered for.
    """

    def __init__(self, words: Sequence[str], log: Path) -> None:
        # One thread each: there are as many processes as processors.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        with log.open("ab") as complaints:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=environment,
                bufsize=0,
            )
        if process.stdin is None or process.stdout is None:
            raise InternalError("a process without pipes")
        self._process = process
        self.questions, self.answers = process.stdin, process.stdout
        self.waiting: deque[tuple[Verb, str]] = deque()
        self.asked: deque[str] = deque()
        self.peak_bytes = 0

    def read_line(self) -> bytes | None:
        """Return one line; None once the process has closed its end."""
        line = self.answers.readline()
        return line if line.endswith(b"\n") else None

    def end(self) -> int:
        """Close its pipes and wait for it; it ends by itself when nothing more can be asked."""
        for pipe in (self.questions, self.answers):
            if not pipe.closed:
                pipe.close()
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
