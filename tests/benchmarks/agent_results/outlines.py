"""The circumference of a fetal head by its outline: twelve points around it, and an ellipse.

Where the ends of an axis lie on a nearly round outline nothing marks; that the outline runs
there, everything does. A landmark is the outline in one of twelve directions from the middle,
lengths are in pixels (a scanner zooms until the head fills the picture), and the ellipse is
fitted so that points that went astray count little. Split by fetus.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from site_client.agent.search import search_in_groups
from site_client.agent.tasks.landmark2d import Case2D, build_cases_2d
from tests.benchmarks.agent_results import data
from tests.benchmarks.agent_results.studies import METHODS as STUDIED
from tests.benchmarks.agent_results.studies import (
    PLANAR,
    Job,
    circumference,
    perimeter,
    planar_task,
)
from tests.benchmarks.agent_results.training import fit

DIRECTIONS = 12
# By method, about fifteen processor seconds; the longer one names its own.
UPDATES = {"dqn": 350, "displacement": 500}
FOLDS = 3
# What a pixel is taken for, so that heads are of the size that the ladder is for.
_MM_A_PIXEL = 0.25
_ASTRAY = 0.03  # of the radius: points further off the ellipse than this count less than half
_ROUNDS = 20
_NARROWEST = 0.6  # of the axes' ratio; annotated heads have 0.66 to 0.96

METHODS = {
    "five points, DQN": (5, {}),
    "five points, displacement": (5, STUDIED["displacement"]),
    "outline, DQN": (DIRECTIONS, {}),
    "outline, displacement": (DIRECTIONS, STUDIED["displacement"]),
    "outline, displacement, longer": (DIRECTIONS, STUDIED["displacement"] | {"updates": 4000}),
}


def outlines(seeds: list[int]) -> Iterator[Job]:
    """Five points or twelve, by steps or by displacements, on three folds by fetus."""
    for seed in seeds:
        for method, (points, changes) in METHODS.items():
            for fold in range(FOLDS):

                def job(
                    seed: int = seed,
                    points: int = points,
                    changes: dict = changes,
                    fold: int = fold,
                ) -> dict[str, object]:
                    return _job(points, changes, fold, seed)

                yield f"{method}/fold{fold}/seed{seed}", job


def _job(points: int, changes: dict, fold: int, seed: int) -> dict[str, object]:
    heads = data.fetal_heads()
    held = heads.fetus % FOLDS == fold
    cases = [_in_pixels(case, points) for case in heads.cases]
    training = [case for case, out in zip(cases, held, strict=True) if not out]
    way = changes.get("method", "dqn")
    recipe = PLANAR.planned(**{"updates": UPDATES[way]} | changes)
    fitted = fit(planar_task(build_cases_2d(training, 0.3), method=way), recipe, seed)
    testing = build_cases_2d(
        [_unknown(case) for case, out in zip(cases, held, strict=True) if out], 0.3
    )
    task = planar_task(testing, method=way)
    rng, starts = np.random.default_rng(1000 + seed), recipe.evaluation.starts
    _, agreed = search_in_groups(
        task,
        fitted.network,
        task.starts(rng, starts, posed=False),
        starts,
        recipe.evaluation,
    )
    found = task.positions_mm(agreed).reshape(len(testing), points, 2) / _MM_A_PIXEL
    pixel = _pixels(heads)[held]
    truth = heads.circumference_mm[held]
    if points == DIRECTIONS:
        told = np.array([perimeter(*semi_axes(outline)) for outline in found]) * pixel
    else:
        told = circumference(found * pixel[:, None, None])
    errors = np.abs(told - truth)
    prior = np.abs(heads.circumference_mm[~held].mean() - truth)
    in_pixels = np.mean(heads.circumference_mm[~held] / _pixels(heads)[~held]) * pixel
    return {
        "mean_abs": float(errors.mean()),
        "median_abs": float(np.median(errors)),
        "far": float((errors > 10).mean()),
        "bias": float((told - truth).mean()),
        "prior_abs": float(prior.mean()),
        "prior_in_pixels_abs": float(np.abs(in_pixels - truth).mean()),
        "truth_mean": float(truth.mean()),
        "images": int(held.sum()),
        "cpu_s": fitted.cpu_s,
        "updates": fitted.updates,
    }


def _pixels(heads: data.FetalHeads) -> NDArray[np.float64]:
    return np.array([case.spacing_mm[0] for case in heads.cases])


def _in_pixels(case: Case2D, points: int) -> Case2D:
    """The same image with lengths in pixels, and as many points of its head as are wanted."""
    five = case.landmarks_mm / case.spacing_mm[0]
    wanted = five if points == len(five) else outline_of(five)
    limit = np.array(case.image.shape[:0:-1]) - 1
    wanted[((wanted < 0) | (wanted > limit)).any(axis=1)] = np.nan
    spacing = (_MM_A_PIXEL, _MM_A_PIXEL)
    return Case2D(case.name, case.image, spacing, wanted * _MM_A_PIXEL, case.group)


def _unknown(case: Case2D) -> Case2D:
    """The same image with stand-ins for every point: which lie in the image is not told."""
    middle = (np.array(case.image.shape[:0:-1]) - 1) / 2 * _MM_A_PIXEL
    stand_ins = np.broadcast_to(middle, case.landmarks_mm.shape).copy()
    return Case2D(case.name, case.image, case.spacing_mm, stand_ins, case.group)


def outline_of(five: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[12, 2]: the ellipse in every direction from its middle.

    Args:
        five: float64[5, 2], the middle and both ends of either axis; NaN is missing. Of an axis
            with one end the middle says the rest; without that nothing is known.
    """
    middle, *ends = five
    half = []
    for one, other in (ends[:2], ends[2:]):
        ways = np.stack([(other - one) / 2, middle - one, other - middle])
        known = ways[np.isfinite(ways).all(axis=1)]
        half.append(known[0] if len(known) else np.full(2, np.nan))
    if not np.isfinite(middle).all():
        middle = np.nanmean([(ends[0] + ends[1]) / 2, (ends[2] + ends[3]) / 2], axis=0)
    angles = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reach = sum((ways @ axis / (axis @ axis)) ** 2 for axis in half) ** -0.5
    return middle + reach[:, None] * ways


def semi_axes(points: NDArray[np.float64]) -> tuple[float, float]:
    """Both semi-axes of the ellipse through points float64[n, 2], those astray counting little.

    Begun without each pair of points in turn, and gone on from the beginning that most points
    lie near; then points are weighed again by how far off they are (Cauchy). Ellipses that are
    no head's are left out; without any other the median radius is a circle's. Source of the fit:
    Halir & Flusser, Numerically stable direct least squares fitting of ellipses, WSCG 1998.
    """
    middle = np.median(points, axis=0)
    scale = np.abs(points - middle).mean()
    places = (points - middle) / scale
    best, form = np.inf, None
    for pair in itertools.combinations(range(len(points)), 2):
        weights = np.ones(len(points))
        weights[list(pair)] = 0
        fit = _conic(places, weights)
        if _is_a_head(fit[1]) and (off := float(np.median(_off(places, *fit)))) < best:
            best, centre, form = off, *fit
    if form is None:
        radius = float(np.median(np.linalg.norm(points - points.mean(axis=0), axis=1)))
        return radius, radius
    for _ in range(_ROUNDS):
        again = _conic(places, 1 / (1 + (_off(places, centre, form) / _ASTRAY) ** 2))
        if not _is_a_head(again[1]):
            break
        centre, form = again
    lengths = np.sqrt(1 / np.linalg.eigvalsh(form)) * scale
    return float(lengths[0]), float(lengths[1])


def _is_a_head(form: NDArray[np.float64]) -> bool:
    """Tell whether an ellipse is one, and not longer than heads are for their width."""
    if not np.isfinite(form).all():
        return False
    small, large = np.linalg.eigvalsh(form)
    return bool(small > 0 and np.sqrt(small / large) > _NARROWEST)


def _off(
    places: NDArray[np.float64], centre: NDArray[np.float64], form: NDArray[np.float64]
) -> NDArray[np.float64]:
    """float64[n]: how far places lie off an ellipse, as a share of its radius there."""
    way = places - centre
    return np.abs(np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", way, form, way), 0)) - 1)


def _conic(
    places: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle float64[2] and form float64[2, 2], (p - middle)' form (p - middle) = 1; or NaN."""
    (x, y), root = places.T, np.sqrt(weights)[:, None]
    squares = np.stack([x * x, x * y, y * y], axis=1) * root
    rest = np.stack([x, y, np.ones_like(x)], axis=1) * root
    mixed = -np.linalg.solve(rest.T @ rest, rest.T @ squares)
    reduced = squares.T @ squares + (squares.T @ rest) @ mixed
    swapped = np.stack([reduced[2] / 2, -reduced[1], reduced[0] / 2])
    _, vectors = np.linalg.eig(swapped)
    vectors = np.real(vectors)
    is_ellipse = 4 * vectors[0] * vectors[2] - vectors[1] ** 2 > 0
    if not is_ellipse.any():
        return np.full(2, np.nan), np.full((2, 2), np.nan)
    a, b, c = vectors[:, np.flatnonzero(is_ellipse)[0]]
    d, e, f = mixed @ np.array([a, b, c])
    form = np.array([[a, b / 2], [b / 2, c]])
    centre = -np.linalg.solve(form, np.array([d, e]) / 2)
    size = centre @ form @ centre - f
    return centre, form / size
