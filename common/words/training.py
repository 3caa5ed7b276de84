"""The words of plans that train: what an agent is asked to find, and what its updates may tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from common.cli import counted
from common.plan import FederationPlan
from common.settings import KINDS
from common.words.kind import Facts, KindWords, Sentences, hidden, tier
from common.words.leaving import sent_weights_of, weights_of

_TOLD: Final = frozenset(
    {
        *("task.kind", "task.landmarks", "task.plane_landmarks", "task.spacing_mm", "task.roi"),
        "task.more_planes",
        *("network.architecture", "network.width", "start", "learner.updates", "learner.batch"),
        "learner.method",
        *("learner.searches", "learner.episode_steps", "learner.learning_rate"),
        *("learner.gradient_clip", "evaluation.starts", "evaluation.poses"),
        *("rounds.training", "rounds.server_momentum", "rounds.train_s", "rounds.late_weight"),
        *("experience.rows", "experience.columns", "experience.key", "experience.kept"),
        *("limits.update_l2", "limits.min_images", "limits.min_transitions"),
        *("limits.min_sketch_fill", "limits.privacy_tier", "seed"),
        *("task.missing", "task.crops", "task.shown", "task.contrasts", "network.private_heads"),
    }
)


def facts(plan: FederationPlan) -> Facts:
    """Say which agent, for how long, and how large its sketch is."""
    momentum = plan.rounds.server_momentum
    seconds, late = plan.rounds.train_s, plan.rounds.late_weight
    return [
        ("task", f"{plan.task.kind}, {plan.network.architecture}"),
        ("looked for", ", ".join(plan.space.labels)),
        *([("missing", "allowed; a head is its sites' average")] if plan.tells_labels else []),
        *([("heads", "private, each site keeps its own")] if plan.network.private_heads else []),
        (
            "rounds",
            f"{plan.rounds.training}, together of {plan.learner.updates} updates, then an "
            "evaluation",
        ),
        *([("a round's training", f"{seconds:g} s at most")] if seconds else []),
        *([("late updates", f"{late:g} of them count in the next round")] if late else []),
        *([("server momentum", f"{momentum:g}")] if momentum else []),
        *([("sketch", _sketch(plan))] if plan.counts else []),
        ("update norm", f"at most {plan.limits.update_l2:g}"),
    ]


def _sketch(plan: FederationPlan) -> str:
    cells = plan.experience
    tables = "two of" if plan.counts == "errors" else "one of"
    kept = ", kept with the model" if cells.kept else ""
    return f"{tables} {cells.rows} x {cells.columns} cells, {tier(plan)}{kept}"


def _work(plan: FederationPlan) -> Sentences:
    learner, measured = plan.learner, plan.evaluation
    dim = KINDS[plan.task.kind].dim
    images = f"{'volumes' if dim == 3 else 'pictures'}, resampled to {plan.task.spacing_mm:g} mm"
    if plan.task.shown == "structure":
        images += " and shown by their structure in place of their greys"
    momentum, rounds = plan.rounds.server_momentum, plan.rounds.training
    return (
        f"Train agents that find {things(plan)} in the site's {images} ({plan.task.kind}). The "
        f"network has {weights_of(plan):,} weights ({network(plan)}).",
        f"{counted(rounds, 'round')} of training, together of "
        f"{counted(learner.updates, 'update')} on {_gathered(plan)}; "
        f"learning rate {learner.learning_rate:g}, gradients clipped to norm "
        f"{learner.gradient_clip:g}.",
        *_experience(plan),
        *_elastic(plan),
        *_differing(plan),
        "Before each round, and after the last, the model is measured on the site's own images: "
        f"{counted(measured.starts, 'start')} per image and thing looked for, under "
        f"{counted(measured.poses, 'random pose')}.",
        f"The site computes each round's weights itself, from {_start(plan)} and the sums of all "
        "sites' updates, which it verifies; no order carries weights."
        + (f" The average goes on with {momentum:g} of the last rounds' way." if momentum else ""),
    )


def _experience(plan: FederationPlan) -> Iterator[str]:
    """Say what is told of experience, and who reads it."""
    cells = plan.experience
    named = "how far from its aim" if cells.key == "offset" else "where in the image"
    form = f"a table of {cells.rows} x {cells.columns} hashed cells, named by {named} a search was"
    match plan.counts:
        case "experience":
            reads = "What few have met is replayed more. " if _is_rare_first(plan) else ""
            yield f"Each round's experience is counted in {form}. {reads}{_kept(plan)}".strip()
        case "errors":
            yield (
                f"What is replayed, and how wrong the network was there, is summed in {form}: two "
                "of them. What all sites together still get wrong is replayed more."
            )
        case None:
            pass


def _is_rare_first(plan: FederationPlan) -> bool:
    return plan.kind == "training" and plan.learner.replay == "rare-first"


def _kept(plan: FederationPlan) -> str:
    if not plan.experience.kept:
        return ""
    return (
        "The sum of all tables stays beside the model at every site: it says where few have "
        "found what is looked for."
    )


def _gathered(plan: FederationPlan) -> str:
    """Say what an update learns from, and where that comes from."""
    learner = plan.learner
    if learner.method == "displacement":
        return (
            f"the way to what is looked for, from {counted(learner.batch, 'place')} drawn at random"
        )
    return (
        f"{counted(learner.batch, 'transition')}, which {learner.searches} searches at a time of "
        f"at most {learner.episode_steps} steps gather"
        + (", with a policy of its own for every axis" if learner.moves_all_axes else "")
    )


def _elastic(plan: FederationPlan) -> Iterator[str]:
    """Say what sites do that need longer than others."""
    if seconds := plan.rounds.train_s:
        yield (
            f"A site trains {seconds:g} s in a round and no longer, but for the fewest updates "
            "that its policy lets out. It says how many updates it has made, and counts in the "
            "average by them."
        )
    if late := plan.rounds.late_weight:
        yield (
            "A site whose update came too late for its round adds "
            f"{late:g} of it to its update of the next round."
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
    if copies := plan.task.crops:
        yield (
            f"Beside every image stand {copies} of it that were cropped at random, so that "
            "landmarks are cut off, and may be reported as absent. The "
            "update of the last round also holds where each landmark lies on average in the "
            "site's images, how often it was cut off, and the weights by which that is decided."
        )
    if copies := plan.task.contrasts:
        yield f"Beside every image stand {copies} of it in other greys, drawn at random."
    if plan.network.private_heads:
        sent, whole = sent_weights_of(plan), weights_of(plan)
        yield (
            f"Of the {whole:,} weights the sites add up {sent:,}. The other {whole - sent:,} "
            "belong to one head each; every site trains its own, from the plan's seed, and no "
            "record, order or sum holds them."
        )


def things(plan: FederationPlan) -> str:
    """Say what is looked for."""
    task = plan.task
    match KINDS[task.kind].section:
        case "box":
            return f"boxes around {', '.join(task.landmarks)}"
        case "plane":
            planes = (task.plane_landmarks, *task.more_planes)
            return " and ".join(f"the plane of {', '.join(plane)}" for plane in planes)
        case "registration":
            return "the rigid motion between two images"
        case "glimpse":
            return f"{', '.join(task.landmarks)} in large images, by glimpses"
        case "growing":
            return f"seeds of regions that grow to {', '.join(task.landmarks)}"
        case "centreline":
            return "the course of a vessel from a seed"
        case _:
            return ", ".join(task.landmarks)


def sought(plan: FederationPlan) -> str:
    """Say the same with its verb."""
    named = things(plan)
    return f"{'are' if ', ' in named else 'is'} {named}"


def network(plan: FederationPlan) -> str:
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


def floors(plan: FederationPlan) -> Sentences:
    """Say what must stand behind an update and a table of experience."""
    limits = plan.limits
    return (
        f"{counted(limits.min_images, 'image')} and {limits.min_transitions:,} new transitions at "
        + (
            f"least; {100 * limits.min_sketch_fill:g} % of a table's cells in use."
            if plan.counts
            else "least."
        ),
        f"An update of L2 norm above {limits.update_l2:g} is refused.",
    )


def _seen(plan: FederationPlan) -> Sentences:
    return (
        "It sees each site's update by itself, neither masked nor with noise, its counts, and its "
        "mean error per thing looked for. An update is made of the site's images; what it may tell "
        "of them the bounds of the site's policy keep small, and `cairn-site dry-run` shows.",
        *([hidden(plan)] if plan.counts else []),
    )


def learnt(plan: FederationPlan) -> Sentences:
    """Say what of the others every site comes to know."""
    experience = (
        ", and the sum of all sites' tables, in which holders of the federation key can look up "
        "any experience that they think of"
    )
    return (
        "Every site gets the sum of all sites' updates, and so the model"
        f"{experience if plan.counts else ''}. One site's own share is not sent to "
        "another; where two take part, each can subtract its own.",
    )


WORDS: Final = KindWords(
    fields=_TOLD,
    facts=facts,
    work=_work,
    floors=floors,
    seen=_seen,
    learnt=learnt,
    report="counts, loss and mean error per landmark over the site's own images, held-out "
    "and training ones apart; or the number of a failure",
)
