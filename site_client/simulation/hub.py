"""One process that holds many made-up sites and is asked for one of them at a time.

A site's worker is opened for its order and closed after it, as by ``worker --once``: what a
process holds does not grow with its sites. Everything that a real site checks is checked.
"""

from __future__ import annotations

import resource
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from common.arrivals.files import read_bounded
from common.enrolment import read_invite
from common.plan import FederationPlan
from common.simulation import Learner, Post, Question, Told, line_of, question_in
from common.wire.parcel import MAX_PARCEL_BYTES
from site_client.simulation.sites import make_site
from site_client.site import SiteFolder
from site_client.spool import Spool
from site_client.worker.loop import Worker


@dataclass(frozen=True)
class Hub:
    """Some sites of a simulated federation.

    Attributes:
        root: folder below which each site has its own.
        post: the folder between us and the simulation.
        plan: that is simulated.
        learner: what answers for a site.
        images: of each site.
        seed: of the simulation.
    """

    root: Path
    post: Post
    plan: FederationPlan
    learner: Learner
    images: int
    seed: int

    def serve(self, questions: BinaryIO, answers: BinaryIO) -> None:
        """Do what each line asks until there are no more.

        Raises:
            CairnError: a site could not be made, or could not record.
        """
        for line in iter(questions.readline, b""):
            question = question_in(line)
            began = time.process_time()
            replied = self._do(question)
            told = Told(
                site=question.site,
                replied=replied,
                cpu_us=round(1e6 * (time.process_time() - began)),
                peak_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            )
            answers.write(line_of(told))
            answers.flush()

    def _do(self, question: Question) -> bool:
        site = SiteFolder(self.root / question.site)
        if question.do == "answer":
            return self._answer(site, question.site)
        invite = read_invite(self.post.invite(question.site))
        request = make_site(site, invite, self.plan, self.learner, self.images, self.seed)
        shutil.copyfile(request, self.post.request(question.site))
        return True

    def _answer(self, site: SiteFolder, name: str) -> bool:
        """Hand a site its order, let its worker work, and take what its door released."""
        order = self.post.order(name)
        spool = Spool(site.spool)
        digest = spool.put_order(read_bounded(order, MAX_PARCEL_BYTES, "an order"))
        order.unlink()
        with Worker(site, threading.Event()) as worker:
            while worker.turn():
                continue
        reply = spool.reply_path(digest)
        if not reply.exists():
            return False
        reply.rename(self.post.reply(name))
        return True
