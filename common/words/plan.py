"""A plan's demands on a site, in sentences that a person can decide about.

Complete by construction: a field that no sentence tells is listed, with its value, in
the last passage, so that a field added later cannot go unsaid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from common.cli import counted, megabytes
from common.plan import FederationPlan
from common.schedule import schedule
from common.settings import KINDS
from common.words.facts import DIGITS, RADIX, facts_of, few
from common.words.leaving import (
    Leaving,
    leavings,
    most_in_a_round,
    most_in_a_run,
    sent_weights_of,
    weights_of,
)

_NO_IMAGE = "No record has a field for an image, a file name, a subject's name, a path or a text."
_ALWAYS_TOLD = frozenset({"version", "name", "kind"})
_TOLD_OF_RUNS = frozenset({"rounds.quorum", "rounds.deadline_s", "limits.max_envelope_bytes"})
_TOLD_OF_TRAINING = frozenset(
    {
        *("task.kind", "task.landmarks", "task.plane_landmarks", "task.spacing_mm", "task.roi"),
        *("network.architecture", "network.width", "start", "learner.updates", "learner.batch"),
        *("learner.searches", "learner.episode_steps", "learner.learning_rate"),
        *("learner.gradient_clip", "evaluation.starts", "evaluation.poses"),
        *("rounds.training", "rounds.server_momentum", "experience.rows", "experience.columns"),
        *("limits.update_l2", "limits.min_images", "limits.min_transitions"),
        *("limits.min_sketch_fill", "limits.privacy_tier", "seed"),
        *("task.missing", "network.private_heads"),
    }
)
_TOLD_OF_NO_OP = frozenset(
    {
        *("task.kind", "task.landmarks", "task.plane_landmarks", "task.roi", "network.width"),
        *("network.architecture", "rounds.training"),
        *("experience.rows", "experience.columns", "limits.update_l2", "limits.min_images"),
        *("limits.min_transitions", "limits.min_sketch_fill", "limits.privacy_tier"),
    }
)
_TOLD_OF_PIXELS = frozenset(
    {
        *("pixels.bands", "pixels.codec", "pixels.components", "pixels.bins", "pixels.levels"),
        *("pixels.rows", "pixels.columns", "pixels.top", "pixels.key_pixels", "pixels.key_sites"),
        *("pixels.min_slides", "pixels.min_pixels", "limits.privacy_tier"),
        "pixels.smoothing",
        *("limits.min_sketch_fill", "pixels.presence_floor"),
    }
)
_TOLD_OF_MAPS = frozenset(
    {
        *("embed.codec", "embed.codebook", "embed.groups", "embed.min_slides"),
        *("embed.min_pixels", "embed.group_pixels"),
    }
)
_TOLD: Final[Mapping[str, frozenset[str]]] = {
    "training": _TOLD_OF_TRAINING,
    "no-op": _TOLD_OF_NO_OP,
    "pixels": _TOLD_OF_PIXELS,
    "embed": _TOLD_OF_MAPS,
}


@dataclass(frozen=True)
class Passage:
    """Sentences under a heading."""

    heading: str
    sentences: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def in_words(plan: FederationPlan) -> tuple[Passage, ...]:
    """Everything that a plan asks of a site, in passages that can be read one by one."""
    records = leavings(plan)
    return (
        Passage("What a site is asked", (*_asked(plan), *_course(plan))),
        Passage("What leaves it", tuple(_leaves(each) for each in records) + _together(plan)),
        Passage("What must stand behind it", _floors(plan)),
        Passage("What the aggregator sees, and what not", _seen(plan)),
        Passage("What the other sites learn", _learnt(plan)),
        Passage("The rest of the plan", _rest(plan)),
    )


def all_words(plan: FederationPlan) -> dict[str, object]:
    """Facts, passages and sizes of a plan for ``--json``."""
    return {
        "plan": plan.name,
        "kind": plan.kind,
        "fingerprint": plan.fingerprint,
        "facts": [{"name": name, "value": value} for name, value in facts_of(plan)],
        "words": [passage.as_dict() for passage in in_words(plan)],
        "leaves": [each.as_dict() for each in leavings(plan)],
        "most_bytes_in_a_round": most_in_a_round(plan),
        "most_bytes_in_a_run": most_in_a_run(plan),
        "fields": dict(fields_of(plan)),
    }


def _asked(plan: FederationPlan) -> tuple[str, ...]:
    match plan.kind:
        case "training":
            return _asked_training(plan)
        case "no-op":
            return (
                "Train nothing and open no image: for "
                f"{counted(plan.rounds.training, 'round')} send messages of the right size, with "
                "an update of zeros and counts of random keys, to see whether the way there and "
                "back works.",
                f"The images are counted. The network would have {weights_of(plan):,} weights "
                f"({_network(plan)}); not looked for {_sought(plan)}.",
            )
        case "pixels":
            return _asked_pixels(plan)
        case "embed":
            section = plan.embed
            return (
                f"Map the site's slides with the codebook {section.codebook[:16]}… and the codec "
                f"{section.codec[:16]}…, which come with the run: every pixel gets the number of "
                f"one of {counted(len(section.groups), 'group')} ({', '.join(section.groups)}).",
                "The maps stay at the site; how many pixels each group has leaves it.",
            )


def _asked_training(plan: FederationPlan) -> tuple[str, ...]:
    learner, measured = plan.learner, plan.evaluation
    dim = KINDS[plan.task.kind].dim
    images = f"{'volumes' if dim == 3 else 'pictures'}, resampled to {plan.task.spacing_mm:g} mm"
    momentum, rounds = plan.rounds.server_momentum, plan.rounds.training
    return (
        f"Train agents that find {_things(plan)} in the site's {images} ({plan.task.kind}). The "
        f"network has {weights_of(plan):,} weights ({_network(plan)}).",
        f"{counted(rounds, 'round')} of training, together of "
        f"{counted(learner.updates, 'update')} on {counted(learner.batch, 'transition')}, which "
        f"{learner.searches} searches at a time of at most {learner.episode_steps} steps gather; "
        f"learning rate {learner.learning_rate:g}, gradients clipped to norm "
        f"{learner.gradient_clip:g}.",
        *_differing(plan),
        "Before each round, and after the last, the model is measured on the site's own images: "
        f"{counted(measured.starts, 'start')} per image and thing looked for, under "
        f"{counted(measured.poses, 'random pose')}.",
        f"The site computes each round's weights itself, from {_start(plan)} and the sums of all "
        "sites' updates, which it verifies; no order carries weights."
        + (f" The average goes on with {momentum:g} of the last rounds' way." if momentum else ""),
    )


def _differing(plan: FederationPlan) -> Iterator[str]:
    """Say what sites that differ do."""
    if plan.task.missing == "allow":
        yield (
            "A site may lack some of what is looked for, in some images or in all. What fewer "
            f"than {counted(plan.limits.min_images, 'image')} of a site show, it does not train. "
            + (
                "Heads stay at each site."
                if plan.network.private_heads
                else "A head is the average over the sites that have its label, and stays as it "
                "is in a round in which none has."
            )
        )
    if plan.network.private_heads:
        sent, whole = sent_weights_of(plan), weights_of(plan)
        yield (
            f"Of the {whole:,} weights the sites add up {sent:,}. The other {whole - sent:,} "
            "belong to one head each; every site trains its own, from the plan's seed, and no "
            "record, order or sum holds them."
        )


def _things(plan: FederationPlan) -> str:
    """Say what is looked for."""
    task = plan.task
    match KINDS[task.kind].section:
        case "box":
            return f"boxes around {', '.join(task.landmarks)}"
        case "plane":
            return f"the plane of {', '.join(task.plane_landmarks)}"
        case "registration":
            return "the rigid motion between two images"
        case _:
            return ", ".join(task.landmarks)


def _sought(plan: FederationPlan) -> str:
    things = _things(plan)
    return f"{'are' if ', ' in things else 'is'} {things}"


def _network(plan: FederationPlan) -> str:
    """Say which network it is, how wide, and what it sees."""
    view = " x ".join(map(str, plan.space.shape[1:]))
    return f"{plan.network.architecture} of width {plan.network.width}, views of {view} samples"


def _start(plan: FederationPlan) -> str:
    if plan.start is None:
        return f"the plan's seed ({plan.seed})"
    return (
        f"a model that it knows already (digest {plan.start}, and seed {plan.seed} for what "
        "is drawn)"
    )


_PHASES: Final = {
    "survey": "survey (how bright pixels are and how bands go together)",
    "range": "range (how far each component reaches)",
    "sketch": "sketch (counts of the quantised pixels)",
    "recover": "recover (each site reads the frequent ones out of all sites' sum)",
}


def _asked_pixels(plan: FederationPlan) -> tuple[str, ...]:
    section = plan.pixels
    count, radix = section.digits
    return (
        f"Count the pixels of the site's slides of {counted(len(section.bands), 'band')} "
        f"({few(section.bands)}). A pixel becomes a key: {count} {DIGITS[section.codec]} of "
        f"{radix} {RADIX[section.codec]} each.",
        *_smoothing(section.smoothing),
        "Rounds of work: " + "; ".join(_PHASES[phase] for phase in schedule(plan)[1:]) + ".",
        f"Named outside the site are only keys of {section.key_pixels} pixels or more in the whole "
        f"federation that are present at {section.key_sites} sites or more, at most "
        f"{section.top:,}; a key is present at a site with "
        f"{counted(section.presence_floor, 'pixel')}.",
    )


def _smoothing(pixels: float) -> tuple[str, ...]:
    """Say how bands are smoothed first, where they are."""
    if not pixels:
        return ()
    return (
        "Before anything else every band is smoothed by a Gaussian of a standard deviation of "
        f"{pixels:g} pixels, so that a key also tells of a pixel's neighbours.",
    )


def _course(plan: FederationPlan) -> tuple[str, ...]:
    rounds = plan.rounds
    return (
        "Round 0 only compares what everybody starts from. A round counts with "
        f"{counted(rounds.quorum, 'site')} or more; a site that has not answered after "
        f"{rounds.deadline_s:g} s is late for it.",
    )


def _leaves(each: Leaving) -> str:
    often = "once" if each.times == 1 else f"{each.times} times"
    return (
        f"{each.record}, {often} ({', '.join(each.phases)}), at most "
        f"{each.most_bytes:,} bytes: {each.holds}."
    )


def _together(plan: FederationPlan) -> tuple[str, ...]:
    return (
        f"Together at most {megabytes(most_in_a_round(plan))} in a round and "
        f"{megabytes(most_in_a_run(plan))} in the whole run; no envelope above "
        f"{plan.limits.max_envelope_bytes:,} bytes.",
        _NO_IMAGE,
    )


def _floors(plan: FederationPlan) -> tuple[str, ...]:
    limits, stricter = plan.limits, "The site's policy may ask for more, never for less."
    if plan.kind == "pixels":
        pixels = plan.pixels
        return (
            f"{counted(pixels.min_slides, 'slide')} and {pixels.min_pixels:,} pixels at least; "
            f"{100 * limits.min_sketch_fill:g} % of a sketch's cells in use.",
            stricter,
        )
    if plan.kind == "embed":
        embed = plan.embed
        return (
            f"{counted(embed.min_slides, 'slide')} and {embed.min_pixels:,} pixels at least; a "
            f"group of fewer than {embed.group_pixels:,} pixels is told as none.",
            stricter,
        )
    return (
        f"{counted(limits.min_images, 'image')} and {limits.min_transitions:,} new transitions at "
        f"least; {100 * limits.min_sketch_fill:g} % of a table's cells in use.",
        f"An update of L2 norm above {limits.update_l2:g} is refused.",
        stricter,
    )


def _seen(plan: FederationPlan) -> tuple[str, ...]:
    if plan.kind == "embed":
        return (
            "It sees each site's number of slides, of pixels, and of pixels per group.",
            "It sees no slide and no map.",
        )
    if plan.limits.privacy_tier == 0:
        hidden = (
            "This plan asks for no key: whoever has a site's sketch, the aggregator first, can "
            "look up in it whatever they think of."
        )
    else:
        hidden = (
            "What the sketches counted it cannot look up: cells are hashed with a key that only "
            "the sites have. Totals, and how alike two sites' sketches are, it sees."
        )
    if plan.kind == "pixels":
        return (
            "It sees each site's sums over all its pixels by themselves: brightness, products of "
            "bands, reach of components; and the keys that the sites name, with their counts.",
            hidden,
        )
    if plan.kind == "no-op":
        return ("It sees how many images each site has, and zeros.", hidden)
    return (
        "It sees each site's update by itself, neither masked nor with noise, its counts, and its "
        "mean error per thing looked for. An update is made of the site's images; what it may tell "
        "of them the bounds of the site's policy keep small, and `cairn-site dry-run` shows.",
        hidden,
    )


def _learnt(plan: FederationPlan) -> tuple[str, ...]:
    if plan.kind == "embed":
        return ("Nothing from the run: each site's counts go to the aggregator.",)
    if plan.kind == "pixels":
        return (
            "Every site gets the sum of all sites' sketches, in which it can look up any key that "
            "it thinks of, but not whose pixels they were; and the codec, which is fitted to all "
            "sites' sums. One site's own sketches are not sent to another; where two take part, "
            "each can subtract its own.",
        )
    return (
        "Every site gets the sum of all sites' updates, and so the model, and the sum of all "
        "sites' tables, in which holders of the federation key can look up any experience that "
        "they think of. One site's own share is not sent to another; where two take part, each "
        "can subtract its own.",
    )


def _rest(plan: FederationPlan) -> tuple[str, ...]:
    covered = _ALWAYS_TOLD | _TOLD_OF_RUNS | _TOLD[plan.kind]
    rest = [f"{name} = {value}" for name, value in fields_of(plan) if name not in covered]
    return (
        ("; ".join(rest) + ".") if rest else "Every field was told above.",
        f"Fingerprint: {plan.fingerprint}",
    )


def fields_of(plan: FederationPlan) -> list[tuple[str, object]]:
    """Dotted name and value of every field of the plan's kind, defaults included."""
    fields: list[tuple[str, object]] = []
    for name, value in plan.model_dump(mode="json").items():
        if isinstance(value, dict):
            fields += [(f"{name}.{field}", inner) for field, inner in value.items()]
        else:
            fields.append((name, value))
    return fields
