"""``cairn-aggregator relay up``: a relay's programs, its word at the desk, and its errands.

The same SuperLink as the aggregator's, for this relay's sites only; one run of the constant
app on it, which does the errands and is begun anew whenever it has ended. The aggregator
names the sites: what it named last is good for as long as it cannot be asked.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Final, Self

from aggregator.bells import make_folder
from aggregator.desk.relaying import Stand, standing
from aggregator.relays.folder import RelayFolder
from aggregator.rounds.queue import is_locked
from aggregator.rounds.server import RUN_KEY, TURN_KEY
from aggregator.rounds.superlink import SuperLink
from aggregator.service import Service, Show, authority, local_address
from common.crypto.certificates import days_left, parse_node_public_key, read_certificate
from common.errors import CairnError, RefusedError, UnreachableError
from common.waking import Alarm

STAND_S: Final = 4.0
"""Between two words to the aggregator, unless an order waits for a site."""
AGAIN_S, SOUND_S = 5.0, 300.0
"""Until what failed is tried again; what went on for so long was no failure."""
LOOKS: Final = 8
"""How many looks at the programs there are to one at the errands."""
WARN_BELOW_DAYS: Final = 30
Say = Callable[[str], None]


class Standing:
    """The relay's word at the desk, in a thread of its own; a context manager.

    Args:
        folder: the relay's.
        say: takes what happens, for a person.
        online: names the sites that are connected.
        opens: opens the way to the desk; passed in for tests.

    Attributes:
        refused: why the aggregator takes nothing of this relay; None while it does.
    """

    def __init__(
        self,
        folder: RelayFolder,
        say: Say,
        online: Callable[[], set[str]],
        opens: Callable[[], AbstractContextManager[Stand]],
    ) -> None:
        self._folder, self._say, self._online, self._opens = folder, say, online, opens
        self._bells = make_folder(folder.federation.order_bells)
        self._stop = threading.Event()
        self._trouble = ""
        self.refused: CairnError | None = None
        self._thread = threading.Thread(target=self._keep, name="standing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * AGAIN_S)

    def _keep(self) -> None:
        while not self._stop.is_set():
            try:
                with self._opens() as stand, Alarm(self._bells) as alarm:
                    self._stand(stand, alarm)
            except (CairnError, OSError) as error:
                if isinstance(error, RefusedError) and error.field == "relay":
                    self.refused = error
                    return
                if str(error) != self._trouble:
                    self._say(f"the aggregator's desk is not to be had: {error}")
                self._trouble = str(error)
                self._stop.wait(AGAIN_S)

    def _stand(self, stand: Stand, alarm: Alarm) -> None:
        while not self._stop.is_set():
            members = stand(self._online(), self._told())
            if members != self._folder.members():
                self._folder.keep_members(members)
            if self._trouble:
                self._say("the aggregator's desk answers again")
                self._trouble = ""
            alarm.wait(STAND_S, self._stop)

    def _told(self) -> list[str]:
        """Take the bells that were rung, which are sites' names."""
        rung = [path for path in self._bells.iterdir() if not path.name.startswith(".")]
        for path in rung:
            path.unlink(missing_ok=True)
        return [path.name for path in rung]


class RelayService:
    """A relay, as long as it runs.

    Args:
        folder: unpacked.
        show: takes a program's name, and how it stands.
        say: takes what happens, for a person.
    """

    def __init__(self, folder: RelayFolder, show: Show, say: Say) -> None:
        self._folder, self._say, self._show = folder, say, show
        self._service = Service(folder.federation, show, lambda _: folder.members())
        self._run = 0
        self._looks = 0
        self._served = False
        self._began, self._pause = -math.inf, AGAIN_S

    def keep(self, stop: threading.Event, tell: Show) -> None:
        """Serve until ``stop`` is set.

        Args:
            stop: ends it.
            tell: takes who says something, and what.

        Raises:
            InputDataError: the port is taken.
            InternalError: a program ended by itself.
            UnreachableError: the SuperLink does not start.
            RefusedError: the relay was withdrawn.
        """
        file, key = self._folder.file(), self._folder.desk_key()
        try:
            self._service.start()
            opens = partial(standing, file, key)
            with Standing(self._folder, self._say, self._online, opens) as word:
                self._say(f"Relay {file.name} ready at {file.address}")
                warning = self._warning()
                if warning:
                    self._say(warning)
                self._service.watch(stop, tell, partial(self._look, word))
            self._say("stopping")
            with suppress(UnreachableError), self._link() as link:
                link.stop_run(self._run)
        finally:
            self._service.stop()

    def _look(self, word: Standing) -> None:
        """Begin the run of the errands, and begin it anew once it has ended, ever later.

        Raises:
            RefusedError: the relay was withdrawn.
        """
        if word.refused is not None:
            raise word.refused
        self._looks += 1
        if self._run and self._looks % LOOKS:
            return
        # Flower takes a minute to notice a process that was killed; the kernel frees its lock.
        serves = is_locked(self._folder.lock)
        killed, self._served = self._served and not serves, serves
        with suppress(UnreachableError), self._link() as link:
            if self._run and not killed and not link.has_ended(self._run):
                return
            now = time.monotonic()
            if now < self._began + self._pause:
                return
            self._pause = AGAIN_S if now - self._began > SOUND_S else min(2 * self._pause, SOUND_S)
            self._began = now
            if self._run:
                self._say("the errands ended by themselves and are begun anew: see superexec.log")
                link.stop_run(self._run)
            self._run = link.start_run({RUN_KEY: "relay", TURN_KEY: ""})
            self._show("errands", "are fetched from the aggregator")

    def _online(self) -> set[str]:
        """Name the sites that are connected here."""
        keys = {
            member.name: parse_node_public_key(member.node_key)
            for member in self._folder.members()
            if not member.revoked
        }
        if not keys:
            return set()
        with suppress(UnreachableError), self._link() as link:
            return link.online(keys)
        return set()

    def _link(self) -> SuperLink:
        federation = self._folder.federation
        return SuperLink(local_address(federation), authority(federation))

    def _warning(self) -> str:
        """Say that the relay's certificate ends soon, if it does."""
        days = days_left(read_certificate(self._folder.federation.pki / "server.crt"))
        if days >= WARN_BELOW_DAYS:
            return ""
        name = self._folder.file().name
        return (
            f"The relay's certificate ends in {days} days: at the aggregator, "
            f"cairn-aggregator relay add {name} ... makes its file anew; start with that"
        )
