"""One process that holds many made-up sites and is asked for one of them at a time.

Everything that a real site checks is checked. A worker without a learner stays open between
its orders, as a real one does, while the process may open files; with one it is opened for
its order and closed after it, as by ``worker --once``, for its images would fill the memory.
"""

from __future__ import annotations

import resource
import shutil
import threading
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from common.arrivals.files import read_bounded
from common.enrolment import read_invite
from common.plan import FederationPlan
from common.simulation import HubRequest, Learner, Post, Told, line_of, request_in
from common.sums.addition import MOST_SITES
from common.wire.parcel import MAX_PARCEL_BYTES
from site_client.simulation.sites import make_site
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.worker.loop import Worker

_FILES_OF_A_WORKER: Final = 2  # the ledger, and its lock
_OTHER_FILES: Final = 128


def most_workers(learner: Learner) -> int:
    """Return how many workers may stay open, and let this process open as many files as it may."""
    if learner != "none":
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Without a limit of the kernel's: as many as a run may have.
    files = hard if hard != resource.RLIM_INFINITY else _FILES_OF_A_WORKER * MOST_SITES
    return max(0, files - _OTHER_FILES) // _FILES_OF_A_WORKER


@dataclass
class Hub:
    """Some sites of a simulated federation.

    Attributes:
        root: folder below which each site has its own.
        post: the folder between us and the simulation.
        plan: that is simulated.
        learner: what answers for a site.
        images: of each site.
        seed: of the simulation.
        most_open: workers that stay open.
    """

    root: Path
    post: Post
    plan: FederationPlan
    learner: Learner
    images: int
    seed: int
    most_open: int = 0
    _kept: dict[str, Worker] = field(default_factory=dict)

    def serve(self, questions: BinaryIO, answers: BinaryIO) -> None:
        """Do what each line asks until there are no more.

        Raises:
            CairnError: a site could not be made, or could not record.
        """
        with ExitStack() as open_workers:
            for line in iter(questions.readline, b""):
                began = time.process_time()
                question = request_in(line)
                replied = self._do(question, open_workers)
                message = Told(
                    site=question.site,
                    replied=replied,
                    cpu_us=round(1e6 * (time.process_time() - began)),
                    peak_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                )
                answers.write(line_of(message))
                answers.flush()

    def _do(self, question: HubRequest, open_workers: ExitStack) -> bool:
        site = SiteFolder(self.root / question.site)
        if question.do == "answer":
            return self._answer(site, question.site, open_workers)
        invite = read_invite(self.post.invite(question.site))
        request = make_site(site, invite, self.plan, self.learner, self.images, self.seed)
        shutil.copyfile(request, self.post.request(question.site))
        return True

    def _answer(self, site: SiteFolder, name: str, open_workers: ExitStack) -> bool:
        """Hand a site its order, let its worker work, and take what its door released."""
        order = self.post.order(name)
        spool = Spool(site.spool)
        digest = spool.put_order(read_bounded(order, MAX_PARCEL_BYTES, "an order"))
        order.unlink()
        worker = self._kept.get(name) or Worker(site, threading.Event())
        if name not in self._kept and len(self._kept) < self.most_open:
            self._kept[name] = open_workers.enter_context(worker)
        with nullcontext(worker) if name in self._kept else worker:
            while worker.turn():
                continue
        reply = spool.reply_path(digest)
        if not reply.exists():
            return False
        reply.rename(self.post.reply(name))
        return True
