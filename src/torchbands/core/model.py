"""Model: one interface to any victim, whatever its architecture. Layers are found by type and by tracing one
forward pass, never by name."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .budget import MOST, in_parts, room_of
from .data import Batch, Column, take
from .devices import differentiable
from .errors import InputError, NotApplicable
from .layers import CHANNELS_FIRST, Gate, Split, Trace, Unit, gate_hook, trace
from .modality import Encoded, Modality
from .passes import Charge, Outputs, Passes, Shared


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes it natively, else float32.

    A CPU that is told to run without AVX-512 (ATEN_CPU_CAPABILITY=avx2) counts as one that has none: the instructions
    are there, but the kernels that use them are not taken.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    native = native and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.bfloat16 if device.type == "cpu" and native else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """Name of the dtype, such as "float32"."""
    return str(dtype).removeprefix("torch.")


class Model:
    """A classifier over raw batches of a modality.

    The module is put in eval mode, and its convolutions in channels_last layout. Normalisation belongs inside it: raw
    images are in [0, 1].

    Args:
        module: maps encoded batches to (N, classes) logits; None for a black box.
        modality: what its samples are.
        classes: number of classes K.
        predict: for a black box, raw batch -> (N, K) probabilities.
        precision: "fast" runs inference in bfloat16 where the device has it; "float32" never does.
    """

    def __init__(
        self,
        module: nn.Module | None,
        modality: Modality,
        classes: int,
        *,
        predict: Callable[[Batch], Tensor] | None = None,
        precision: str = "float32",
        passes: Passes | None = None,
    ) -> None:
        if (module is None) == (predict is None):
            raise InputError("a model is either a module or a predict function")
        if classes < 2:
            raise InputError(f"a classifier has at least 2 classes, got {classes}")
        if precision not in ("fast", "float32"):
            raise InputError(f"precision is 'fast' or 'float32', got {precision!r}")
        self._module = None if module is None else _prepared(module)
        self.modality, self.classes, self.precision = modality, classes, precision
        self._predict = predict
        self.passes = passes or Passes()
        self._shared: Shared | None = None
        #: What its training or its opening had to tell, JSON-ready: what a server thought of its clients, notes.
        self.facts: dict[str, Any] = {}

    @classmethod
    def wrap(cls, module: nn.Module, modality: Modality, classes: int, **options: Any) -> Model:
        """Any nn.Module as a Model."""
        return cls(module, modality, classes, **options)

    @classmethod
    def black_box(cls, predict: Callable[[Batch], Tensor], modality: Modality, classes: int) -> Model:
        """A black box that only returns probabilities (an API, ONNX, a tree ensemble)."""
        return cls(None, modality, classes, predict=predict)

    @property
    def module(self) -> nn.Module:
        """The network. Raises for a black box, which has none."""
        if self._module is None:
            raise NotApplicable("a black box has no weights, gradients or features")
        return self._module

    @property
    def predict(self) -> Callable[[Batch], Tensor] | None:
        """The prediction function of a black box; None for a network."""
        return self._predict

    @property
    def capabilities(self) -> frozenset[str]:
        """The needs (see `method.NEEDS`) that this model can serve."""
        full = {"logits", "gradients", "features", "weights", "units", "model"}
        return frozenset({"logits", "model"} if self._module is None else full)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        if self._module is None:
            return torch.device("cpu")
        first = next(self._module.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    @property
    def chunk(self) -> int:
        """Batch size of forward passes, chosen by the measured memory per row (`torchbands.core.budget`)."""
        return MOST["cpu"] if self._module is None else room_of(self._module).rows(self, gradients=False)

    @property
    def gradient_chunk(self) -> int:
        """Batch size of forward and backward passes."""
        return room_of(self.module).rows(self, gradients=True)

    def clone(self) -> Model:
        """An independent copy; forward passes are counted together with the original's."""
        return Model(
            copy.deepcopy(self.module),
            self.modality,
            self.classes,
            precision=self.precision,
            passes=self.passes,
        )

    def at_precision(self, precision: str) -> Model:
        """The same weights run in another precision; forward passes are counted together, and shared in one block."""
        out = Model(
            self._module, self.modality, self.classes, predict=self._predict, precision=precision, passes=self.passes
        )
        out._shared = self._shared
        return out

    @property
    def dtype(self) -> torch.dtype:
        """The dtype it computes in on this device."""
        return fast_dtype(self.device) if self.precision == "fast" else torch.float32

    # --- forward ------------------------------------------------------------------------------------------------

    def encode(self, x: Batch) -> Encoded:
        """A raw batch on the model's device."""
        return self.modality.encode(x).to(self.device)

    def run(self, e: Encoded, *, trim: bool = True) -> Tensor:
        """Logits of an encoded (not embedded) batch, with gradients if they are on. Used by training loops.

        Args:
            trim: leave out the last positions that no row uses.
        """
        self.passes.count(len(e.values), _computed_in(self.device))
        return self._call(e.trimmed() if trim else e)

    def _call(self, e: Encoded) -> Tensor:
        with differentiable(self.module, recurrent=self._recurrent):
            return self.modality.call(self.module, e)

    @cached_property
    def _recurrent(self) -> bool:
        return any(isinstance(layer, nn.RNNBase) for layer in self.module.modules())

    def _forward(self, e: Encoded, *, trim: bool = True) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype is torch.bfloat16):
            return self.run(e, trim=trim).float()

    def _chunks(self, x: Batch | Column) -> Iterator[Batch]:
        size = self.chunk if not self.modality.discrete else 16 * self.chunk
        for rows in torch.arange(len(x)).split(size):
            part = x if len(x) <= size and isinstance(x, (Tensor, list)) else take(x, rows)
            self.modality.check(part)
            yield part

    def _rows(self, x: Batch | Column, read: Callable[[Encoded], Tensor]) -> Tensor:
        """`read` of every chunk, (N, D) on the CPU in the order of the rows; sequences go through sorted by length."""
        made, done = torch.zeros(0), 0
        with torch.no_grad():
            for part in self._chunks(x):
                e = self.encode(part)
                lengths = e.lengths()
                order = torch.arange(len(part)) if lengths is None else lengths.argsort(stable=True).cpu()
                place = order + done

                def send(some: Tensor, e: Encoded = e, order: Tensor = order) -> tuple[Tensor, Tensor]:
                    return some, read(e.at(order[some].to(e.values.device))).cpu()

                for some, values in in_parts(self, len(part), send):
                    if not done and not len(made):  # in place from the start: joining at the end takes as much again
                        made = values.new_empty(len(x), *values.shape[1:])
                    made[place[some]] = values
                done += len(part)
        return made

    def logits(self, x: Batch | Column) -> Tensor:
        """(N, K) float32 on the CPU, without gradients. A black box gives log-probabilities.

        Raises InputError where samples are of the wrong type, shape, dtype or range, as `outputs` and `features` do.
        """
        if (kept := self._recall(x)) is not None:
            return kept.logits
        if len(x) == 0:
            return torch.zeros(0, self.classes)
        if self._predict is not None:
            predict = self._predict
            self.passes.count(len(x), "unknown")
            return torch.cat([predict(part).float().clamp_min(1e-12).log() for part in self._chunks(x)])
        return self._rows(x, self._forward)

    def generate(self, prompts: Batch | Column, *, tokens: int) -> list[str]:
        """Answers of a generator to N prompts, each at most `tokens` long."""
        raise NotApplicable("a classifier gives classes, and generates nothing")

    def probabilities(self, x: Batch | Column) -> Tensor:
        """(N, K) float32 on the CPU."""
        return self.logits(x).softmax(1)

    def outputs(self, x: Batch | Column) -> Outputs:
        """Logits and penultimate features in one forward pass; inside `shared` it is made once for all who ask."""
        if (kept := self._recall(x)) is not None:
            return kept
        head = self.head
        if head is None:
            raise NotApplicable("no linear head was found, so there is no penultimate layer")
        state, before = self._state(x), (self.passes.forward, time.perf_counter(), time.process_time())
        inputs: list[Tensor] = []
        handle = self.module.get_submodule(head).register_forward_pre_hook(
            lambda _, args: inputs.append(_pooled(args[0].detach().float()))
        )
        try:
            both = self._rows(x, lambda e: torch.cat([self._forward(e), inputs.pop()], 1))
        finally:
            handle.remove()
        made = Outputs(both[:, : self.classes], both[:, self.classes :])
        if self._shared is not None and self._shared.open:
            rows, wall, cpu = before
            cost = Charge(self.passes.forward - rows, time.perf_counter() - wall, time.process_time() - cpu)
            cost.dtypes.add(dtype_name(self.dtype))
            self._shared.keep(x, state, made, cost, self.passes.users)
        return made

    def features(self, x: Batch | Column, layer: str | None = None) -> Tensor:
        """(N, D) float32 on the CPU: what enters the linear head, or a layer's output.

        Maps are averaged over space, sequences over their real positions.
        """
        return self.outputs(x).features if layer is None else self.features_of(x, [layer])[0]

    def features_of(self, x: Batch | Column, layers: Sequence[str | None]) -> list[Tensor]:
        """`features` of several layers in one forward pass."""
        if None in layers and self.head is None:
            raise NotApplicable("no linear head was found, so there is no penultimate layer")
        first = {name: name is not None and isinstance(self._layer(name), CHANNELS_FIRST) for name in layers}
        last: dict[str | None, Tensor] = {}  # a layer that is used twice gives its last output
        widths: list[int] = []

        def keep(name: str | None, h: Tensor) -> None:
            last[name] = h.detach().float()

        def read(e: Encoded) -> Tensor:
            last.clear()
            self._forward(e)
            mask = e.trimmed().mask
            made = [_pooled(last[n], None if n is None else mask, channels_first=first[n]) for n in layers]
            widths[:] = [h.shape[1] for h in made]
            return torch.cat(made, 1)

        handles = [
            self._layer(self.head or "").register_forward_pre_hook(lambda _, args: keep(None, args[0]))
            if name is None
            else self._layer(name).register_forward_hook(lambda _, args, out, name=name: keep(name, _first(out)))
            for name in layers
        ]
        try:
            return list(self._rows(x, read).split(widths, 1))
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def shared(self) -> Iterator[Model]:
        """Make the forward pass over the same object once for all who ask for it inside the block, and keep no longer.

        Whoever opens the block promises that nobody changes weights or rows in it. Outside, every call is a new pass.
        """
        if self._shared is not None and self._shared.open:
            yield self
            return
        mine = self._shared = Shared()
        try:
            yield self
        finally:
            mine.close()
            self._shared = None

    def _state(self, x: object) -> Hashable:
        """A fingerprint of everything that changes the output: versions of weights and rows, mode, hooks, precision."""
        if self._shared is None or self._module is None:
            return None
        tensors = [*self._module.parameters(), *self._module.buffers(), *([x] if isinstance(x, Tensor) else [])]
        layers = tuple((m.training, *m._forward_hooks, *m._forward_pre_hooks) for m in self._module.modules())
        return tuple((t._version, t.data_ptr()) for t in tensors), layers, self.dtype

    def _recall(self, x: object) -> Outputs | None:
        if self._shared is None or not self._shared.knows(x):
            return None
        return self._shared.find(x, self._state(x), self.passes.users)

    # --- the continuous space -----------------------------------------------------------------------------------

    def embed(self, x: Batch) -> Encoded:
        """A raw batch in the space where triggers are optimised: the input itself, or token embeddings."""
        e = self.encode(x)
        if not self.modality.discrete:
            return e
        with torch.no_grad():
            return Encoded(self.embedding(e.values).float(), e.mask, e.values)

    @property
    def embedding(self) -> nn.Embedding:
        """The token embedding of a token model."""
        if self.traced.embedding is None:
            raise NotApplicable("no nn.Embedding is used by the model")
        found = self.module.get_submodule(self.traced.embedding)
        assert isinstance(found, nn.Embedding)
        return found

    def logits_at(self, e: Encoded) -> Tensor:
        """(N, K) float32 logits of one embedded batch, differentiable with respect to its values."""
        if e.tokens is None:
            return self._forward(e)
        e = e.trimmed()
        assert e.tokens is not None
        handle = self.embedding.register_forward_hook(lambda *_: e.values)
        try:
            return self._forward(Encoded(e.tokens, e.mask))
        finally:
            handle.remove()

    def features_at(self, e: Encoded) -> Tensor:
        """(N, D) float32 penultimate features of one encoded or embedded batch, differentiable."""
        if self.head is None:
            raise NotApplicable("no linear head was found, so there is no penultimate layer")
        caught: list[Tensor] = []
        handle = self.module.get_submodule(self.head).register_forward_pre_hook(
            lambda _, args: caught.append(_pooled(args[0].float()))
        )
        try:
            self.logits_at(e)
        finally:
            handle.remove()
        return caught[-1]

    # --- inside -------------------------------------------------------------------------------------------------

    @cached_property
    def traced(self) -> Trace:
        """Result of tracing one forward pass on noise: the layers in order, the head, the embedding."""
        x = self.modality.random(2, torch.Generator().manual_seed(0))
        e = self.encode(x)
        return trace(self.module, lambda: self.modality.call(self.module, e))

    @property
    def head(self) -> str | None:
        """Path of the linear layer whose output is the logits, if there is one."""
        return self.traced.head

    def units(self) -> list[Unit]:
        """Layers whose output units can be scaled (conv, linear, norm, attention), in order, without the head."""
        return list(self.traced.units)

    def _layer(self, name: str) -> nn.Module:
        try:
            return self.module.get_submodule(name)
        except AttributeError:
            known = ", ".join(n for n, _ in self.module.named_modules() if n)
            raise InputError(f"no layer {name!r} in {type(self.module).__name__}", hint=f"layers: {known}") from None

    @contextmanager
    def gated(self, gates: Mapping[str, Gate | Tensor]) -> Iterator[Model]:
        """Run with per-unit scales and shifts on layers' outputs; gradients flow into them. Nothing is kept after.

        Args:
            gates: layer path -> Gate, or a (units,) scale.
        """
        dims = {u.layer: u.dim for u in self.units()}
        handles = []
        shared, self._shared = self._shared, None
        try:
            for name, gate in gates.items():
                if name not in dims:
                    raise InputError(f"{name!r} has no units that can be scaled", hint=f"layers: {', '.join(dims)}")
                made = gate if isinstance(gate, Gate) else Gate(gate)
                handles.append(self._layer(name).register_forward_hook(gate_hook(made, dims[name])))
            yield self
        finally:
            self._shared = shared
            for handle in handles:
                handle.remove()

    def baked(self, scales: Mapping[str, Tensor]) -> Model:
        """A clone whose layers carry (units,) scales in their weights and biases: pruning is a scale of 0."""
        out = self.clone()
        for name, scale in scales.items():
            layer = out._layer(name)
            target = layer.out_proj if isinstance(layer, nn.MultiheadAttention) else layer
            with torch.no_grad():
                for parameter in (getattr(target, "weight", None), getattr(target, "bias", None)):
                    if isinstance(parameter, Tensor):
                        parameter.mul_(scale.to(parameter).view(-1, *[1] * (parameter.ndim - 1)))
        return out

    def split(self, layer: str | None = None) -> Split:
        """Cut the model in two at a layer's output (or before the linear head): body(x) -> h, head(h) -> logits.

        Raises NotApplicable where the rest of the model also sees what went around the cut.
        """
        if layer is None:
            if self.head is None:
                raise NotApplicable("no linear head was found to cut before")
            return Split(self.features, self.module.get_submodule(self.head))
        target = self._layer(layer)
        rng = torch.Generator().manual_seed(1)

        def head_of(rows: int) -> Callable[[Tensor], Tensor]:
            dummy = self.encode(self.modality.random(rows, rng)) if rows else None

            def head(h: Tensor) -> Tensor:
                e = self.encode(self.modality.random(len(h), rng)) if dummy is None else dummy
                handle = target.register_forward_hook(lambda *_: h)
                try:
                    return self._call(e)
                finally:
                    handle.remove()

            return head

        def body(x: Batch) -> Tensor:
            caught: list[Tensor] = []
            handle = target.register_forward_hook(lambda _, args, out: caught.append(_first(out)))
            try:
                self._forward(self.encode(x), trim=False)
            finally:
                handle.remove()
            return caught[0]

        probe = self.modality.random(4, torch.Generator().manual_seed(2))
        wanted = self.logits(probe)
        # one dummy row feeds what is before the cut; networks that ask their input for its length need as many as h has
        for head in (head_of(1), head_of(0)):
            with torch.no_grad():
                try:
                    got = head(body(probe)).float().cpu()
                except RuntimeError:
                    continue
            if got.shape == wanted.shape and torch.allclose(got, wanted, atol=1e-2, rtol=1e-2):
                return Split(body, head)
        raise NotApplicable(f"layer {layer!r} is not a cut: the layers after it see more than its output")

    @contextmanager
    def training(self) -> Iterator[nn.Module]:
        """The module in train mode; eval mode again after."""
        self.module.train()
        try:
            yield self.module
        finally:
            self.module.eval()


def _computed_in(device: torch.device) -> str:
    return dtype_name(
        torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32
    )


def _prepared(module: nn.Module) -> nn.Module:
    """Eval mode; channels_last where there are 2-d convolutions, which is up to 2.5 times faster on a CPU.

    oneDNN's AVX2 kernel of a strided 1x1 convolution's weight gradient writes past its workspace where rows are
    channels_last and there are fewer channels than a block of 8 (oneDNN issue 6035): such networks stay contiguous.
    """
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    if convolutions:
        unsafe = any(
            layer.in_channels // layer.groups < 8 and max(layer.kernel_size) == 1 and max(layer.stride) > 1
            for layer in convolutions
        )
        layout = torch.contiguous_format if unsafe else torch.channels_last
        if not all(layer.weight.is_contiguous(memory_format=layout) for layer in convolutions):
            module = module.to(memory_format=layout)  # type: ignore[call-overload]
    return module.eval()


def _first(out: Any) -> Tensor:
    tensor: Tensor = out[0] if isinstance(out, tuple) else out
    return tensor


def _pooled(h: Tensor, mask: Tensor | None = None, *, channels_first: bool = False) -> Tensor:
    """(N, D): maps (N, C, H, W) averaged over space, sequences (N, L, D), or (N, D, L), over their real positions."""
    if h.ndim == 4:
        return h.mean((2, 3))
    if h.ndim != 3:
        return h.flatten(1)
    if channels_first:
        h = h.transpose(1, 2)
    if mask is None or mask.shape[1] != h.shape[1]:
        return h.mean(1)
    real = mask[..., None].to(h)
    return (h * real).sum(1) / real.sum(1).clamp_min(1)
