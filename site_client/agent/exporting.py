"""A trained network for programs of others: ONNX, compared with torch before it is kept.

The file holds the network and nothing else: no image, no name of a case. It is data for
whoever reads it; nothing here reads one but to compare it.
"""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from common.cli import megabytes
from common.errors import VerificationError
from common.model import Weights
from common.settings import AgentSettings
from site_client.agent.network import set_weights
from site_client.agent.networks import QNetwork, build_network
from site_client.files import write_atomically

INPUTS: Final = ("observations", "level", "head")
OUTPUT: Final = "values"
TOLERANCE: Final = 1e-5
_OPSET: Final = 17
# Other numbers of rows than the network is traced with.
_ROWS: Final = (1, 3)
_SEED: Final = 0x6F6E6E78


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        file: where.
        bytes: its size.
        observations: shape of one search's, without the rows; in 0..1.
        heads, levels, actions: sizes.
        reach_mm: unit of the displacements that it gives, by level; none: it gives values.
        difference: the largest from torch's values over all that was compared, as a share of
            the largest value, or of one.
    """

    file: str
    bytes: int
    observations: tuple[int, ...]
    heads: int
    levels: int
    actions: int
    difference: float
    reach_mm: tuple[float, ...] = ()

    @property
    def says(self) -> str:
        """Say what it takes and gives, in a line."""
        shape = ", ".join(map(str, ("n", *self.observations)))
        return (
            f"{megabytes(self.bytes)}; observations float32[{shape}] in 0..1, level int64[n], "
            f"head int64[n] -> {self._gives}; at most "
            f"{self.difference:.1e} from torch"
        )

    @property
    def _gives(self) -> str:
        if not self.reach_mm:
            return f"values of {self.actions} actions"
        reach = ", ".join(f"{each:g}" for each in self.reach_mm)
        return f"displacements along {self.actions} axes, in {reach} mm by level"

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def export_onnx(settings: AgentSettings, weights: Weights, origin: str, file: Path) -> Exported:
    """Write a network as ONNX.

    Args:
        settings: what it was trained for, and how it is laid out.
        weights: the network's.
        origin: where they come from, in words.
        file: to write.

    Raises:
        ModuleNotFoundError: without the extra ``onnx``; the command says how to install it.
        InputDataError: the weights are not those of the settings.
        VerificationError: what was made computes something else; nothing is written.
    """
    import onnx  # noqa: F401 - what is not compared is not written: say so before any work

    space = settings.space
    network = build_network(settings.network, space, torch.Generator())
    set_weights(network, weights)
    network.eval()
    one = space.shape if space.agents == 1 else (space.agents, *space.shape)
    data = _traced(network, _rows(2, one, space.levels, space.heads), settings, origin)
    difference = max(
        _difference(data, network, _rows(rows, one, space.levels, space.heads)) for rows in _ROWS
    )
    # A NaN is no smaller than anything.
    if not difference <= TOLERANCE:
        raise VerificationError(
            "the exported network computes something else",
            field="values",
            expected=f"within {TOLERANCE:g} of torch's",
            got=f"a difference of {difference:.2g}",
            advice="Nothing was written",
        )
    write_atomically(file, data)
    sizes = (space.heads, space.levels, space.actions)
    return Exported(str(file), len(data), one, *sizes, difference, space.reach_mm)


def _rows(
    rows: int, one: tuple[int, ...], levels: int, heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Observations float32[rows, *one] at random, with levels and heads in turn."""
    pixels = np.random.default_rng([_SEED, rows]).random((rows, *one), dtype=np.float32)
    turn = torch.arange(rows)
    return torch.from_numpy(pixels), turn % levels, (turn + 1) % heads


@torch.no_grad()
def _traced(
    network: QNetwork, rows: tuple[torch.Tensor, ...], settings: AgentSettings, origin: str
) -> bytes:
    """Trace the network; any number of rows may be given to what comes of it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Of the tracer: it warns of every size that is fixed; those that are, may be.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            rows,
            buffer,  # type: ignore[arg-type]  # it takes files, too
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "n"} for name in (*INPUTS, OUTPUT)},
            opset_version=_OPSET,
            dynamo=False,
        )
    import onnx

    model = onnx.load_from_string(buffer.getvalue())
    about = {
        "origin": origin,
        "task": settings.task.kind,
        "shown": settings.task.shown,
        "looks_for": list(settings.space.labels),
        "levels_mm": list(settings.space.views_mm),
        "reach_mm": list(settings.space.reach_mm),
        "not_for": "diagnosis or treatment: not a medical device",
    }
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"cairn.{key}", json.dumps(value)
    model.doc_string = "A Cairn Q-network; its settings are in checkpoint.json beside its weights."
    return bytes(model.SerializeToString())


def _difference(data: bytes, network: QNetwork, rows: tuple[torch.Tensor, ...]) -> float:
    """Return the largest difference from torch's values, as a share of the largest of them.

    Values below one count as one: errors of float32 grow with what is added up.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_from_string(data)
    onnx.checker.check_model(model)
    given = {name: value.numpy() for name, value in zip(INPUTS, rows, strict=True)}
    values: NDArray[np.float32] = np.asarray(ReferenceEvaluator(model).run(None, given)[0])
    with torch.no_grad():
        expected = network(*rows).numpy()
    if values.shape != expected.shape:
        return float("inf")
    largest = max(1.0, float(np.abs(expected).max(initial=0.0)))
    return float(np.abs(values.astype(np.float64) - expected).max(initial=0.0)) / largest
