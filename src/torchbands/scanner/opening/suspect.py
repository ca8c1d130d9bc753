"""`open_suspect`: one file or folder of unknown origin, as a model, alerts, or one clear error."""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchbands.core.errors import InputError, Unsupported
from torchbands.scanner.alerts import Alert, Level
from torchbands.scanner.outcome import Subject

from . import archives, onnx_graph, other_tools, pickles, tensors
from .files import ADAPTER, Folder, read
from .limits import MAX_FILES, Limits
from .location import Home
from .refusal import Refusal, alert, ambiguous, begins, listed, malformed, plain

if TYPE_CHECKING:
    from torchbands.core.modality import Modality
    from torchbands.core.model import Model

    from .weights import Numbers, State, Weights

#: Names that promise a format: content that is none of it is then unsupported, and no wrong setting.
_PROMISES = (
    ".safetensors",
    ".onnx",
    ".pt",
    ".pth",
    ".th",
    ".ckpt",
    ".bin",
    ".pkl",
    ".pickle",
    ".joblib",
    ".npy",
    ".npz",
)
#: Modules that loading a model imports; a file of that name in a folder wants to be taken for one.
_IMPORTED = {"torch", "numpy", "transformers", "tokenizers", "safetensors", "sitecustomize", "usercustomize"} | set(
    sys.stdlib_module_names
)


@dataclass(frozen=True)
class Suspect:
    """What opening gave.

    Attributes:
        path, sha256: of the file; for a folder, of the names and hashes of all that lies in it.
        format: safetensors, torch, torch-legacy, torchscript, onnx, huggingface, torchbands, pickle, or "".
        model: None where it was refused; the alerts say why.
        facts: JSON-ready; "task" is the task's spec for a torchbands victim.
    """

    path: str
    sha256: str
    format: str
    model: Model | None
    alerts: tuple[Alert, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def subject(self) -> Subject:
        """For an Outcome; the path is escaped where it has control characters or markup."""
        return Subject("model", plain(self.path), self.sha256, self.format, self.facts)


def open_suspect(
    path: str | Path,
    *,
    arch: str | None = None,
    modality: Modality | None = None,
    classes: int | None = None,
    likely: int | None = None,
    output: str | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    allow_pickle: bool = False,
    limits: Limits | None = None,
) -> Suspect:
    """Open a model of unknown origin. Nothing of the suspect is executed.

    Args:
        path: a .safetensors, torch or ONNX file, a Hugging Face folder, or a torchbands victim directory; its content
            decides, not its name.
        arch: "package.module:factory" (your own code, not in the suspect's folder), a network's name or JSON spec;
            needed where the suspect does not say.
        modality: what the model reads; needed with `arch`.
        classes: checked against the head, which is otherwise asked. likely: how many classes the rows have, for
            models that leave it open; the head need not agree.
        output: name of the output that holds the classes, where a model has several.
        mean, std: normalisation to put inside the model, one number or one per channel, for inputs in [0, 1].
        allow_pickle: read pickles of other classes after fickling found nothing overtly malicious, with inert
            stand-ins for those classes; they are never run.
        limits: time and memory.

    Raises:
        InputError: a path that cannot be read, an unknown format, a missing or unfitting architecture.
        MissingExtra: onnxruntime, transformers or fickling is needed and not installed.
    """
    from .weights import State

    path, limits, state = Path(path), limits or Limits(), State()
    ask = _Ask(arch, modality, classes, likely, output, mean, std, allow_pickle, limits)
    model = None
    try:
        folder = _is_folder(path)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{plain(path)} cannot be read: {plain(reason)}", hint="name a model file or folder") from None
    home = Home.of(path)
    try:
        with home.left_out():
            model = _open_folder(path, ask, home, state) if folder else _open_file(path, ask, home, state)
    except Refusal as refusal:
        state.alerts.append(refusal.alert)
    except InputError as error:
        if all(a.level == "low" for a in state.alerts):
            raise
        state.facts["not_opened"] = error.message  # what was found before is worth more than the error
    return Suspect(str(path), state.sha256, state.format, model, tuple(state.alerts), state.facts)


@dataclass(frozen=True)
class _Ask:
    arch: str | None
    modality: Modality | None
    classes: int | None
    likely: int | None
    output: str | None
    mean: Numbers | None
    std: Numbers | None
    allow_pickle: bool
    limits: Limits


def _is_folder(path: Path) -> bool:
    path.stat()
    return path.is_dir()


def _open_file(path: Path, ask: _Ask, home: Home, state: State, *, follow: bool = True) -> Model:
    data = read(path, ask.limits.bytes, follow=follow)
    state.sha256 = hashlib.sha256(data).hexdigest()
    if path.is_symlink():
        state.facts["link_to"] = plain(path.resolve())
    if not data:
        raise Unsupported(f"{plain(path.name)} is empty", hint="download it, or save it, again")
    if onnx_graph.looks_like(data):
        from .onnx import from_onnx

        given = (ask.modality, ask.classes, ask.likely, ask.output, ask.mean, ask.std)
        return from_onnx(data, state, ask.limits, *given)
    weights = _weights(data, path, ask, state)
    state.facts |= weights.facts()
    weights.afford(ask.limits.bytes)
    weights.check()
    from .architecture import model_of

    head = (ask.classes, ask.likely, ask.output)
    return model_of(weights, ask.arch, ask.modality, *head, ask.mean, ask.std, home, state)


def _weights(data: bytearray, path: Path, ask: _Ask, state: State) -> Weights:
    if tensors.looks_like(data):
        state.format = "safetensors"
        entries = tensors.header(data)
        if not entries:
            raise malformed("the safetensors file holds no tensors", subject=path.name)
        from .weights import Weights

        return Weights(tensors.tensors(data, entries))
    if archives.looks_like(data):
        from .checkpoint import from_zip

        return from_zip(data, state, ask.limits, ask.allow_pickle)
    if pickles.looks_like(data):
        from .checkpoint import from_pickle

        return from_pickle(data, state, ask.limits, ask.allow_pickle)
    if data.startswith(b"\x93NUMPY"):
        from .checkpoint import refuse_arrays

        refuse_arrays(data, path.name)
    other_tools.refuse_file(data, path)
    if path.suffix.lower() in _PROMISES:
        raise Unsupported(
            f"{plain(path.name)} is no {path.suffix.lower()} file, though its name says so: it {begins(data)}",
            hint="name the model itself; where a download or a copy failed, fetch the file again",
        )
    raise InputError(
        f"{plain(path)} is no model file that is known here",
        hint="known: safetensors, torch state dicts, TorchScript, ONNX, Hugging Face folders, torchbands victims",
    )


def _open_folder(path: Path, ask: _Ask, home: Home, state: State) -> Model:
    folder = Folder(path)
    state.alerts += folder.alerts
    within = (name for name, _ in itertools.islice(folder.below(), MAX_FILES))
    if code := [n for n in within if n.lower().endswith((".py", ".pyc", ".so", ".dll", ".pyd"))]:
        shadows = [n for n in code if n.split(".")[0] in _IMPORTED]
        said = f"the folder brings code ({listed(shadows or code)}); none of it was imported"
        said += ", though it has the names of modules that Python would import" if shadows else ""
        level: Level = "medium" if shadows else "low"
        state.alerts.append(alert("BD-FILE-03", said, subject=(shadows or code)[0], level=level, files=code[:50]))
    if "card.json" in folder.names and "config.json" in folder.names:
        raise ambiguous("the folder has a card.json and a config.json: torchbands and transformers build other models")
    try:
        if "card.json" in folder.names:
            from .victim import from_victim

            return from_victim(folder, state, ask.limits, ask.classes, ask.mean, ask.std)
        if "config.json" in folder.names:
            from .huggingface import from_folder

            return from_folder(folder, state, ask.limits, ask.modality, ask.classes, ask.mean, ask.std)
    finally:
        state.sha256 = folder.sha256(ask.limits.bytes) if folder.hashes else ""
    if "repair.json" in folder.names and "model.safetensors" in folder.names:  # written by `bands repair`
        return _open_file(path / "model.safetensors", ask, home, state, follow=False)
    if ADAPTER in folder.names:
        raise Unsupported(
            f"{plain(path)} is an adapter (LoRA and the like), which changes a model that is not in the folder",
            hint="merge it and scan that: peft.AutoPeftModelForSequenceClassification.from_pretrained(FOLDER)"
            ".merge_and_unload().save_pretrained('merged'), with the tokenizer beside it",
        )
    other_tools.refuse_folder(path, folder.names)
    raise InputError(
        f"{plain(path)} is no model folder: it has neither config.json nor card.json",
        hint=f"name a model file; in it: {listed(folder.names) or 'nothing'}",
    )
