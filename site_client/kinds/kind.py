"""Say what a kind of task is: all that training, evaluation, films and pages ask of one.

Where nothing is known of an image (it is played, not measured), a stand-in takes the
truth's place: no error against it may be computed or shown.
"""

from __future__ import annotations

import importlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final, Generic

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.cli import counted
from common.errors import InputDataError
from common.model import Weights
from common.settings import KINDS, AgentSettings
from site_client.agent.evaluation import Searched, begin_warm, mean_parameters
from site_client.agent.novelty import Familiar
from site_client.agent.search import Followed, search_in_groups
from site_client.agent.task import Situations
from site_client.files import write_json
from site_client.imaging.case_sets import Cases, Progress, read_images, without_truth
from site_client.imaging.data_settings import DataSettings
from site_client.imaging.drawing import FOUND, TRUTH
from site_client.imaging.sources import Source, Wanted
from site_client.kinds.tables import Column, Section, Table, error_digits, errors_table
from site_client.kinds.values import Answers, Built, F, Measured, Player, T

# Draws poses and starts: equal for every evaluation, so that checkpoints compare.
EVALUATION_SEED: Final = 1
PREDICTIONS_FILE: Final = "predictions.json"
MOST_PICTURES: Final = 8  # of cases on a page

LOG = logging.getLogger("cairn.agent")


class TaskKind(ABC, Generic[T, F]):
    """One kind of task, from files to figures.

    Attributes:
        known: what is known of its cases, in words.
        figures: the names of the task's own figures.
        meaning: what an error is, in a sentence.
        rival, constant: the answer that never looks, in a headline and in a sentence.
        over: what the mean error is over, in a sentence; "" where there is nothing to say.
        no_prior: why there may be no such answer, in a sentence.
        better: the headline of an agent that is better.
        title, nothing: what stands over a table of findings, and in the place of an empty one.
        texts: columns of that table, from the first, that hold no numbers.
        pictured, legend: what stands over the pictures of cases, and their colours.
    """

    known: ClassVar[str] = "landmarks"
    figures: ClassVar[tuple[str, ...]] = ()
    meaning: ClassVar[str] = ""
    rival: ClassVar[str] = "NOT LOOKING"
    constant: ClassVar[str] = "an answer that never looks gives"
    over: ClassVar[str] = ""
    no_prior: ClassVar[str] = ""
    better: ClassVar[str] = "BETTER THAN {rival}"
    title: ClassVar[str] = "{count} found, mm"
    nothing: ClassVar[str] = "Nothing was found."
    texts: ClassVar[int] = 9
    pictured: ClassVar[str] = "The cases with the largest errors, as acquired."
    legend: ClassVar[tuple[tuple[str, tuple[int, int, int]], ...]] = (
        ("true", TRUTH),
        ("found", FOUND),
    )

    # --- cases ---------------------------------------------------------------------------

    @abstractmethod
    def find_files(self, sought: Wanted, data: DataSettings) -> Source:
        """Find images and what is known of them.

        Args:
            sought: which images.
            data: how what is known of them is read.

        Raises:
            InputDataError: nothing there, nothing known, or a table that cannot be read.
        """

    @abstractmethod
    def names(self, source: Source, config: AgentSettings) -> tuple[str, ...]:
        """List what is looked for: as configured, or else everything that some case has.

        Raises:
            InputDataError: a file cannot be read, or nothing is there.
        """

    def cases(
        self,
        source: Source,
        names: Sequence[str],
        config: AgentSettings,
        progress: Progress,
        what: str = "reading images",
    ) -> Cases:
        """Read images and what is known of them.

        Args:
            source: the files.
            names: of what is looked for.
            config: says spacing and how to read.
            progress: called with (what, images read, images in all).
            what: is being done, in words.

        Raises:
            InputDataError: the first thing that cannot be used, by case and name.
        """
        return read_images(source, source.files, names, config, progress, what)

    def unknown_cases(
        self,
        images: Sequence[Path],
        names: Sequence[str],
        config: AgentSettings,
        data: DataSettings,
        progress: Progress,
    ) -> Cases:
        """Read images of which nothing is known.

        Args:
            images: files or folders.
            names: of what the network looks for.
            config: says spacing.
            data: how to read.
            progress: see `cases`.

        Raises:
            InputDataError: an image cannot be used.
        """
        source = self.find_files(Wanted(tuple(images), need_truth=False), data)
        return without_truth(source, names, config, progress)

    def labelled(self, source: Source) -> Source:
        """Keep the cases of which something is known; here all of them."""
        return source

    def find_labelled(self, sought: Wanted, data: DataSettings) -> Source:
        """Find images of which something is known; the others are left out, and counted.

        Raises:
            InputDataError: as `find_files`, and where nothing is known of any.
        """
        whole = self.find_files(replace(sought, need_truth=False), data)
        source = self.labelled(whole)
        if not source.files:
            return self.find_files(sought, data)  # which says what is missing, and where
        if without := len(whole.files) - len(source.files):
            left, used = counted(without, "image"), counted(len(source.files), "image")
            LOG.warning("%s without %s left out; %s used", left, self.known, used)
        return source

    def site_cases(
        self,
        folder: Path,
        config: AgentSettings,
        data: DataSettings,
        progress: Progress,
        *,
        least: int = 1,
    ) -> Cases:
        """Read a site's folder for a federation; cases that nobody labelled are left out.

        Args:
            folder: of the images.
            config: says what is looked for, and the spacing.
            data: how what is known of the images is read.
            progress: see `cases`.
            least: cases that must be left.

        Raises:
            InputDataError: something cannot be used, by case and name, or too little is left.
        """
        source = self.find_labelled(Wanted((folder,), data.landmarks, data.moving), data)
        if len(source.files) < least:
            raise InputDataError(
                f"too few images with {self.known}",
                field=str(folder),
                expected=f"at least {least}",
                got=str(len(source.files)),
                advice="cairn-site check --data lists them",
            )
        return self.cases(source, self.names(source, config), config, progress)

    def site_names(self, config: AgentSettings, folder: Path, data: DataSettings) -> list[str]:  # noqa: ARG002
        """Name the cases that `site_cases` would read; opens no image.

        Raises:
            InputDataError: there are none.
        """
        source = self.find_labelled(Wanted((folder,), data.landmarks, data.moving), data)
        return [files.name for files in source.files]

    # --- task ----------------------------------------------------------------------------

    @abstractmethod
    def build(self, cases: Cases, config: AgentSettings, *, known: bool = True) -> Built[T]:
        """Build the task over some cases.

        Args:
            cases: with what is known of them.
            config: says what is looked for.
            known: false where nothing is: stand-ins take the place of truths.

        Raises:
            InputDataError: the cases or the settings do not fit each other.
        """

    def to_learn_from(self, built: Built[T], config: AgentSettings) -> T:  # noqa: ARG002
        """Give the task to train on: that of the training cases, unless a kind adds to them."""
        return built.task

    def work_out(self, player: Player[T]) -> Weights:
        """Give what goes with a trained network's weights and no gradient moves.

        Args:
            player: the trained network over the training cases.

        Returns:
            arrays by the names of the network's parameters; here none.
        """
        _ = player
        return {}

    def prior(self, built: Built[T]) -> NDArray[np.float64]:
        """Give float64[heads, agents, d]: the answer that never looks, of training cases."""
        return mean_parameters(built.task)[:, None]

    def starts(self, built: Built[T], repeats: int) -> Situations:
        """Draw starts in the cases as acquired, those of a case and head adjacent."""
        rng = np.random.Generator(np.random.PCG64(EVALUATION_SEED))
        return built.task.starts(rng, repeats, posed=False)

    def begin(self, player: Player[T], repeats: int) -> Situations:
        """Draw where searches of the cases as acquired begin, those of a case and head adjacent.

        Raises:
            InputDataError: they are to begin at a mean position that nobody knows.
        """
        start = self.starts(player.built, repeats)
        if not player.config.evaluation.warm_start:
            return start
        rng = np.random.Generator(np.random.PCG64([EVALUATION_SEED, repeats]))
        return begin_warm(player.built.task, start, player.prior, rng)

    def search(self, player: Player[T]) -> Searched:
        """Search the cases as acquired; of errors nothing is known."""
        task, settings = player.built.task, player.config.evaluation
        start = self.begin(player, settings.starts)
        ended, agreed = search_in_groups(task, player.network, start, settings.starts, settings)
        nothing = np.full(ended.shape, np.nan)
        return Searched(ended, nothing, agreed, nothing[:, 0], None, {})

    @abstractmethod
    def find(self, player: Player[T], searched: Searched | None = None) -> Answers[F]:
        """Say what searches find in the cases as acquired.

        Args:
            player: what searches, and over which cases.
            searched: the searches, where truths are known; None searches, and says no error.
        """

    def with_familiarity(
        self,
        player: Player[T],  # noqa: ARG002 - only some kinds have places
        answers: Answers[F],
        familiar: Familiar,  # noqa: ARG002
    ) -> Answers[F]:
        """Say how familiar a federation is with where things were found, where that means one."""
        return answers

    # --- figures -------------------------------------------------------------------------

    def summary(self, measured: Measured[T, F]) -> dict[str, object]:
        """Write the errors for JSON."""
        whole = measured.report.as_dict()
        native = measured.config.evaluation.native
        return {key: value for key, value in whole.items() if native or key != "native"}

    def tables(self, measured: Measured[T, F]) -> dict[str, Table]:
        """Lay out the errors under random poses ("posed") and as acquired ("native")."""
        report = measured.report
        heads = {"posed": report.posed}
        if measured.config.evaluation.native:
            heads["native"] = report.native
        digits = error_digits(report.unit)
        further = (
            Column("agreed", "consensus", digits, digits),
            *(Column(name, name, ".2f", ".2f") for name in self.figures),
            Column("", "searches", "d", "d"),
        )
        return {
            name: errors_table(
                "what",
                report.unit,
                [
                    (
                        label,
                        (s.prior, s.mean, s.std, s.median),
                        (s.consensus, *(s.further[f] for f in self.figures), s.searches),
                    )
                    for label, s in summaries.items()
                ],
                further,
            )
            for name, summaries in heads.items()
        }

    def headline(self, measured: Measured[T, F]) -> str:
        """Say in a few words what was looked for."""
        return measured.config.task.kind

    def numbers(self, measured: Measured[T, F]) -> list[tuple[str, str, str]]:
        """Choose the numbers that head the page: name, number and remark."""
        _ = measured
        return []

    def facts(self, config: AgentSettings) -> list[tuple[str, str]]:
        """Say what else was set, for the end of the page."""
        _ = config
        return []

    def sections(self, measured: Measured[T, F], *, pictures: bool) -> list[Section]:
        """Lay out the page of an evaluation.

        Args:
            measured: what it shows.
            pictures: show slices of the cases, if the kind has such pictures.
        """
        tables = self.tables(measured)
        note = (
            f"{self.meaning} “Prior” is the error of an answer that never looks, on the same "
            "poses. “Consensus” is what the starts of a case agree on."
        )
        posed = Section("posed", "Single searches, under random poses", note, tables["posed"])
        shown = [posed]
        if "native" in tables:
            shown.append(Section("native", "Single searches, as acquired", "", tables["native"]))
        for extra in measured.answers.extras:
            shown.append(Section(extra.name, extra.title, extra.note, extra.table))
        worst = tuple(self.worst(measured)) if pictures else ()
        if worst:
            shown.append(
                Section("cases", "Cases", self.pictured, pictures=worst, legend=self.legend)
            )
        return shown

    def worst(self, measured: Measured[T, F]) -> list[tuple[Image.Image, str]]:
        """Draw the cases with the largest errors, each with a caption, the worst first.

        They show patients' images: they may stand on a page that stays at the site.
        """
        _ = measured
        return []

    # --- what is shown and written -------------------------------------------------------

    @abstractmethod
    def row(self, finding: F) -> dict[str, str]:
        """Write a finding as a row of a table, by column."""

    def as_dict(self, names: Sequence[str], findings: Sequence[F]) -> dict[str, object]:
        """Write findings for JSON.

        Args:
            names: of the cases, also of those in which nothing was found.
            findings: in all cases.
        """
        return {"cases": list(names), "found": [each.as_dict() for each in findings]}

    def write(self, folder: Path, names: Sequence[str], findings: Sequence[F]) -> list[Path]:
        """Write findings as files.

        Args:
            folder: where; made when missing.
            names: of the cases, also of those in which nothing was found.
            findings: in all cases.

        Returns:
            the files written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PREDICTIONS_FILE, self.as_dict(names, findings))
        return [folder / PREDICTIONS_FILE]

    def film_starts(self, player: Player[T]) -> list[Situations]:
        """Choose the searches to film: one for each thing that is looked for in each case."""
        start = self.begin(player, 1)
        return [start[k : k + 1] for k in range(len(start))]

    def film_name(self, built: Built[T], start: Situations) -> str:
        """Name the film of a search."""
        case = built.cases.each[int(start["case"][0])]
        return f"{case.name}_{built.labels[int(start['head'][0])]}"

    @abstractmethod
    def frames(self, player: Player[T], followed: Followed) -> list[Image.Image]:
        """Draw a search, step by step."""


def kind_of(config: AgentSettings) -> TaskKind[Any, Any]:
    """Look up what a configuration's kind of task is; the only dispatch there is."""
    room = importlib.import_module(KINDS[config.task.kind].room)
    kind: TaskKind[Any, Any] = room.KIND
    return kind
