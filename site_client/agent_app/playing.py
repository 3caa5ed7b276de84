"""Search images of which nothing is known, and show how things were found in them.

There is no truth here: what stands in for one is none, and no error is ever computed
from it. How far single searches are from what they agree on, and a box's score, are
the only hints of how sure an answer is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from site_client.agent.evaluation import as_parameters
from site_client.agent.novelty import PLACES_FILE, Familiar
from site_client.agent.search import follow
from site_client.agent_app.checkpoint import Checkpoint
from site_client.agent_app.config import Config
from site_client.agent_app.networks import network_of
from site_client.imaging.case_sets import Cases, Progress
from site_client.kinds.kind import TaskKind, kind_of
from site_client.kinds.values import Answers, Player


@dataclass(frozen=True, eq=False)
class Played:
    """Findings of a play.

    Attributes:
        kind: of task.
        player: the network that searched, and the task over the images.
        answers: what was found, without errors.
        familiar: whether the model knows where its federation has been.
    """

    kind: TaskKind[Any, Any]
    player: Player[Any]
    answers: Answers[Any]
    familiar: bool = False

    @property
    def names(self) -> list[str]:
        """Name the images; of a registration the fixed and the moving one."""
        cases = self.player.built.cases
        return [case.name for case in (*cases.each, *cases.moving)]

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        told = self.kind.as_dict(self.names, self.answers.findings)
        return {**told, "warnings": list(self.answers.warnings)} if self.familiar else told

    def write(self, folder: Path) -> list[Path]:
        """Write what was found; the files are given back."""
        return self.kind.write(folder, self.names, self.answers.findings)

    def films(self) -> Iterator[tuple[str, list[Image.Image]]]:
        """Film one search for each thing that is looked for: name and pictures, one at a time."""
        player = self.player
        for start in self.kind.film_starts(player):
            settings = player.config.evaluation
            followed = follow(player.built.task, player.network, start, settings)
            name = self.kind.film_name(player.built, start)
            yield name, self.kind.frames(player, followed)


def familiar_places(place: Path, checkpoint: Checkpoint) -> Familiar | None:
    """Read the map beside a model's weights; None where its run kept none.

    Raises:
        InputDataError: the map is not the model's.
    """
    path = place / PLACES_FILE
    if not path.is_file():
        return None
    return Familiar.from_bytes(path.read_bytes(), len(checkpoint.landmarks))


def cases_to_play(
    images: Sequence[Path], checkpoint: Checkpoint, config: Config, progress: Progress
) -> Cases:
    """Read images of which nothing is known; of a registration the fixed and the moving one.

    Raises:
        UsageError: a registration of another number of images than two.
        InputDataError: an image cannot be used.
    """
    kind = kind_of(config)
    return kind.unknown_cases(images, checkpoint.landmarks, config, config.data, progress)


def play(
    checkpoint: Checkpoint, config: Config, cases: Cases, familiar: Familiar | None = None
) -> Played:
    """Search for everything in every image, from several starts.

    Args:
        checkpoint: whose network searches.
        config: its configuration, perhaps with other settings of evaluation.
        cases: from `cases_to_play`.
        familiar: where the model's federation has been; None where nobody knows.
    """
    kind = kind_of(config)
    built = kind.build(cases, config, known=False)
    prior = None
    if checkpoint.prior_mm is not None:
        prior = as_parameters(built.task, checkpoint.prior_mm)
    network = network_of(built.task, checkpoint.weights, config)
    player = Player(built, network, config, prior=prior)
    answers = kind.find(player)
    if familiar is not None and answers.findings:
        answers = kind.with_familiarity(player, answers, familiar)
    return Played(kind, player, answers, familiar is not None)
