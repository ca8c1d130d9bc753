"""ONNX as a black box: onnxruntime runs in a limited child process and answers with probabilities only."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from torchbands.core import kinds
from torchbands.core.data import Batch
from torchbands.core.errors import InputError, MissingExtra, Unsupported
from torchbands.core.modality import Layout, Modality
from torchbands.core.model import Model
from torchbands.networks.layers import Normalize

from . import onnx_graph
from .limits import MAX_CLASSES, MAX_EDGE, Limits
from .onnx_outputs import Output, chosen, probabilities, table
from .onnx_session import Session
from .refusal import listed, malformed, shown
from .weights import Numbers, State

_CONTROL = ("If", "Loop", "Scan")
#: Rows by which the kinds of outputs are told apart, and the most outputs that are tried.
_PROBE, _TRIED = 8, 64


def from_onnx(
    data: bytearray,
    state: State,
    limits: Limits,
    modality: Modality | None,
    classes: int | None,
    likely: int | None,
    output: str | None,
    mean: Numbers | None,
    std: Numbers | None,
) -> Model:
    """A black box over the graph. Raises Refusal for external data, foreign operators and damage."""
    state.format = "onnx"
    graph = onnx_graph.inspect(data)
    state.facts |= {"nodes": graph.nodes, "operators": dict(graph.operators.most_common(20))}
    if control := [name for name in _CONTROL if graph.operators[name]]:
        state.facts["control_flow"] = control
    graph.check()
    for package in ("onnxruntime", "numpy"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "onnx")
    session = Session(graph.rebuilt, limits)
    try:
        box = Box(session, modality, mean, std)
        state.facts |= {
            "input": session.told,
            "black_box": "it runs in a process of its own; only its answers are seen",
        }
        found = box.probe(graph, classes, likely, output, state)
    except BaseException:
        session.stop()  # at once, and not when the error is forgotten
        raise
    state.facts["classes"] = found
    return Model.black_box(box, box.modality, found)


class Box:
    """A session that is called with raw batches: (N, ...) -> (N, K) probabilities.

    Attributes:
        layout: the order of axes in which rows go in, where it is not the usual one.
        output: the output with the classes, once `probe` has found it.
    """

    output: Output

    def __init__(self, session: Session, modality: Modality | None, mean: Numbers | None, std: Numbers | None) -> None:
        self.session, self.mean, self.std = session, mean, std
        self._affordable()
        self.told, self.layout = kinds.of_input(session.shape, modality)
        reads = self.told or modality
        if reads is None:
            raise InputError(
                f"the ONNX input {session.told['shape']} does not say what it is",
                hint="name a few of its inputs with --data (in Python: modality=Image(channels=3, size=32))",
            )
        self.modality: Modality = reads
        if session.whole and self.modality.whole_range and not (mean is None and std is None):
            raise InputError(
                f"the ONNX model reads {shown(session.told['type'])}: numbers go in as {self.modality.whole_range}",
                hint="leave out --mean and --std: what is done with the numbers is inside the model",
            )

    def stop(self) -> None:
        """End the process and remove its folder."""
        self.session.stop()

    def _affordable(self) -> None:
        shape = self.session.shape
        if len(shape) == 4 and any(isinstance(n, int) and n > MAX_EDGE for n in shape[1:]):
            raise malformed(
                f"the ONNX input {self.session.told['shape']} is larger than an image of {MAX_EDGE} x {MAX_EDGE}"
            )

    def probe(
        self, graph: onnx_graph.Graph, classes: int | None, likely: int | None, output: str | None, state: State
    ) -> int:
        """Find the output with the classes and what it holds; the number of classes."""
        names = self.session.outputs[:_TRIED]
        if output is not None and output not in self.session.outputs:
            raise InputError(
                f"the ONNX model has no output {output!r}",
                hint=f"its outputs: {listed(self.session.outputs, 20) or 'none that holds numbers'}",
            )
        if not names:
            raise Unsupported(
                f"no output of the ONNX model is a tensor of numbers ({listed(self.session.others)}): scores of the "
                "classes are needed",
                hint="export it with scores; skl2onnx: options={'zipmap': False}",
            )
        if remark := self._settle(output or names[0]):
            state.tell(remark)
        found = [self._tried(name, graph) for name in ([output] if output is not None else names)]
        self.output = chosen(found, classes, likely)
        if not 2 <= self.output.classes <= MAX_CLASSES or classes not in (None, self.output.classes):
            raise InputError(f"the ONNX model has {self.output.classes:,} classes, given: {classes or 'none'}")
        state.facts["outputs_are"] = self.output.kind
        self._tell(found, state)
        return self.output.classes

    def _tell(self, found: list[Output], state: State) -> None:
        """What was chosen or changed on the way in and out."""
        if len(self.session.outputs) > 1:
            state.facts |= {"output": self.output.name, "outputs": [o.told() for o in found]}
            others = [o.told() for o in found if o is not self.output]
            if others:
                state.tell(f"of its outputs, {shown(self.output.name)} is taken for the classes; not {listed(others)}")
        if self.output.kind not in ("logits", "probabilities"):
            state.tell(f"output {shown(self.output.name)} is read as {self.output.kind}")
        if layouts := self.modality.layouts:
            state.facts["layout"] = (self.layout or layouts[0]).label
        if self.layout is not None:
            state.tell(f"the model reads {self.modality.plural} as {self.layout.label}: rows are turned for it")
        if self.session.whole and (said := self.modality.whole_range):
            state.facts["pixels"] = said
            state.tell(f"the model reads whole numbers: {self.modality.plural} go in as {said}")

    def _tried(self, name: str, graph: onnx_graph.Graph) -> Output:
        """What one output gives for noise."""
        rows = self.modality.random(_PROBE, torch.Generator().manual_seed(0))
        return Output.of(name, self.raw(rows, name), len(rows), graph.operator_of(name))

    def _settle(self, output: str) -> str:
        """Where the shape of the input does not say its layout, the one that the model takes; a remark where it takes
        either. Raises InputError where it takes neither."""
        layouts = self.modality.layouts
        if not layouts or len(self.session.shape) != len(layouts[0].axes) or self.told or self.layout:
            return ""
        rows, refused = self.modality.random(_PROBE, torch.Generator().manual_seed(0)), []
        taken: list[Layout] = []
        for layout in layouts:
            self.layout = layout
            try:
                self.raw(rows, output)
                taken.append(layout)
            except InputError as error:
                refused.append(error)
        if not taken:
            raise refused[0]
        self.layout = None if taken[0] is layouts[0] else taken[0]
        said = " and as ".join(layout.label for layout in taken)
        if len(taken) == 1:
            return ""
        return (
            f"the model takes {self.modality.plural} as {said}, and does not say which it was trained with: the "
            "former is taken"
        )

    def __call__(self, batch: Batch) -> Tensor:
        found = table(self.raw(batch, self.output.name), len(batch))
        if found is None:
            raise InputError(f"output {shown(self.output.name)} of the ONNX model changed its shape")
        return probabilities(found, self.output.kind)

    def raw(self, batch: Batch, output: str) -> Tensor:
        """What an output gives for a raw batch, as float32; of an output that is no table of scores, its shape."""
        x = self.modality.encode(batch).values.cpu()
        if self.mean is not None or self.std is not None:
            x = Normalize(x.shape[1], 0.0 if self.mean is None else self.mean, self.std or 1.0, x.ndim)(x)
        if self.session.whole and x.is_floating_point():
            x = self._whole(x)
        if self.layout is not None:
            x = x.permute(self.layout.axes)
        return self.session.run(x, output)

    def _whole(self, x: Tensor) -> Tensor:
        made = self.modality.whole(x)
        if made is None:
            raise Unsupported(
                f"the ONNX model reads whole numbers ({shown(self.session.told['type'])}), the rows are fractions",
                hint="export it so that it reads the rows as they are, as float",
            )
        return made


def normalised(box: Any, mean: Numbers, std: Numbers) -> Box | None:
    """The same session with (x - mean) / std before it; None for another kind of black box, or where it has its own."""
    if not isinstance(box, Box) or box.session.whole or not (box.mean is None and box.std is None):
        return None
    made = Box(box.session, box.modality, mean, std)
    made.layout, made.output = box.layout, box.output
    return made
