"""torch files (zip, legacy, TorchScript) and other pickles: looked at first, then read in a child process."""

from __future__ import annotations

from typing import Any

import torch

from torchbands.core.errors import InputError, MissingExtra, Unsupported
from torchbands.scanner.alerts import Level

from . import archives, claims, other_tools, pickles, tensors
from .files import read
from .limits import MAX_PICKLE, Limits
from .private import Private
from .process import Child, ChildRefusal
from .refusal import CODE, UNUSUAL, Refusal, alert, cut_short, listed, malformed, shown
from .weights import State, Weights, quantised

_RESAVE = "save only the weights where you trust the file: torch.save(model.state_dict(), ...), or as safetensors"
_ONNX = "export it to ONNX where you trust it: skl2onnx.to_onnx(model, X[:1], options={'zipmap': False})"


def from_zip(data: bytearray, state: State, limits: Limits, allow_pickle: bool) -> Weights:
    """Weights of a torch zip file. Raises Refusal for code and damage, InputError for other kinds of archive."""
    archive = archives.opened(data, limits)
    if archive.root is None:
        _no_torch(archive)
    pickle = archive.read(f"{archive.root}data.pkl", MAX_PICKLE)
    state.format = "torchscript" if archive.scripted else "torch"
    if odd := archive.strange():
        said = f"the archive has {len(odd)} entries that no torch file needs: {listed(odd)}; they were not read"
        state.alerts.append(alert(UNUSUAL, said, subject=odd[0]))
    walk = pickles.walk_all(pickle)
    foreign = [n for n in walk.foreign() if not (archive.scripted and _scripted(n))]
    inert = _judged(walk, foreign, pickle, state, limits, allow_pickle)
    if archive.scripted:
        state.facts["torchscript"] = "its tensors were read; its code was not run"
        inert = walk.foreign()
    with Private() as folder:
        archive.repack(folder / "suspect.pt", limits.bytes)
        return _child(folder, state, limits, inert)


def from_pickle(data: bytearray, state: State, limits: Limits, allow_pickle: bool) -> Weights:
    """Weights of a legacy torch file; any other pickle is refused, whatever is in it."""
    legacy = pickles.is_legacy_torch(data)
    state.format = "torch-legacy" if legacy else "pickle"
    walk = pickles.walk_all(data)
    if walk.broken and (later := pickles.later(data, walk.end)):
        said = f"unpickling this file would import {shown(later)}, behind raw data in it: it was not unpickled"
        raise Refusal(CODE, said, level="high", subject=later)
    inert = _judged(walk, walk.foreign(), data[: max(walk.end, 1)], state, limits, allow_pickle)
    if not legacy:
        raise Unsupported("torch.save did not write this pickle: no weights can be read from it", hint=_RESAVE)
    with Private() as folder:
        (folder / "suspect.pt").write_bytes(data)
        return _child(folder, state, limits, inert)


def refuse_arrays(data: bytes | bytearray, name: str) -> None:
    """NumPy files hold no model; with object elements they are pickles."""
    if pickles.numpy_objects(data):
        at = data.find(b"\x80", 10)
        walk = pickles.walk_all(data[at:] if at > 0 else b"")
        raise Refusal(
            CODE,
            f"{shown(name)} is a NumPy array of Python objects, which are unpickled when it is loaded",
            level="high" if walk.overt() else "medium",
            subject=name,
            imports=pickles.said(walk.imports),
        )


def _scripted(name: str) -> bool:
    return name.startswith("__torch__.") or name.startswith("torch.jit._pickle.")


def _judged(
    walk: pickles.Walk, foreign: list[str], data: bytes | bytearray, state: State, limits: Limits, allowed: bool
) -> list[str]:
    """Names to stand in for. Raises Refusal where the pickle is refused; adds alerts where it is allowed."""
    values = [n for n in foreign if pickles.is_value(n)]
    foreign = [n for n in foreign if n not in values]
    if values:
        state.facts["stand_ins"] = pickles.said(values)
    if not foreign:
        _whole(walk, state)
        return values
    overt = [n for n in walk.overt() if n in foreign]
    if not allowed and walk.builds_objects(foreign):
        _whole(walk, state)
        raise Unsupported(
            f"a whole pickled object and not its weights: loading it would import {listed(foreign)}, so nothing was "
            "unpickled",
            hint=_ONNX
            if all(n.startswith(("sklearn.", "joblib.")) for n in foreign)
            else f"{_RESAVE}, or have its tensors read with --allow-pickle",
        )
    facts: dict[str, Any] = {"imports": pickles.said(foreign), "calls": walk.calls}
    hidden = ", with a name that is computed while loading" if "?" in overt else ""
    said = f"unpickling this file would import {listed(overt or foreign)}{hidden}"
    level: Level = "high" if overt else "medium"
    if not allowed:
        more = (
            "it was not unpickled" if overt else f"it was not unpickled; {_RESAVE}, or inspect it with --allow-pickle"
        )
        raise Refusal(CODE, f"{said}: {more}", level=level, subject=(overt or foreign)[0], **facts)
    found = _fickling(bytes(data), limits)
    state.facts["fickling"] = facts["fickling"] = found
    if overt or found.get("overt", True):
        raise Refusal(
            CODE,
            f"{said}; fickling says {found['severity']}: it was not unpickled, although pickles were allowed",
            level="high",
            subject=(overt or foreign)[0],
            **facts,
        )
    state.alerts.append(
        alert(
            CODE,
            f"{said}; fickling says {found['severity']}. Its tensors were read with inert stand-ins for these names",
            level="low",
            subject=foreign[0],
            **facts,
        )
    )
    _whole(walk, state)
    return [*values, *foreign]


def _whole(walk: pickles.Walk, state: State) -> None:
    if walk.broken and "joblib.numpy_pickle.NumpyArrayWrapper" in walk.imports:
        raise Unsupported(
            "a joblib file: raw arrays lie between its instructions, of which only the first were looked at, and "
            "nothing was unpickled",
            hint=_ONNX,
        )
    ends = "before seeing STOP" in walk.broken or "not enough data" in walk.broken
    if ends and state.format in ("torch-legacy", "pickle"):  # within a whole archive it is no accident
        raise cut_short("the pickle inside has no end mark")
    if walk.broken:
        raise malformed(f"the pickle inside is damaged: {shown(walk.broken, 100)}")


def _fickling(data: bytes, limits: Limits) -> dict[str, Any]:
    import importlib.util

    if importlib.util.find_spec("fickling") is None:
        raise MissingExtra("fickling", "scan")
    with Private() as folder:
        (folder / "suspect.pkl").write_bytes(data)
        with Child("fickling", folder, limits) as child:
            try:
                return child.ask({"file": str(folder / "suspect.pkl")})
            except ChildRefusal as error:
                return {"severity": "UNKNOWN", "overt": True, "lines": [str(error)]}


def _child(folder: Private, state: State, limits: Limits, foreign: list[str]) -> Weights:
    if tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 6):
        raise InputError(
            f"torch {torch.__version__} can run code with weights_only=True (CVE-2025-32434)",
            hint="pip install 'torch>=2.6', or convert the file to safetensors",
        )
    out = folder / "tensors.safetensors"
    with Child("torch", folder, limits) as child:
        try:
            reply = child.ask({"file": str(folder / "suspect.pt"), "out": str(out), "foreign": foreign})
        except ChildRefusal as error:
            raise _explained(error) from None
    if reply.get("quantised"):
        raise quantised(reply["quantised"])
    if groups := reply.get("optimizer"):
        raise Unsupported(
            f"the file is an optimizer's state (param_groups, {groups:,} parameters), and holds no weights of a model",
            hint="name the file that its model was saved to, of the same step: torch.save(model.state_dict(), 'm.pt')",
        )
    if not out.is_file() or not reply["order"]:
        kind = "of this kind" if reply["dropped"] else f"(found: {reply['where']})"
        raise Unsupported(
            f"the file holds no weights {kind}",
            hint="a state dict is expected: torch.save(model.state_dict(), 'm.pt')",
        )
    data = read(out, limits.bytes)
    found = tensors.tensors(data, tensors.header(data))
    if reply["where"] != "state dict":
        state.facts["weights_in"] = reply["where"]
    claims.note(reply.get("claims", {}), "the checkpoint", state)
    if reply["dropped"]:
        state.facts["tensors_not_read"] = reply["dropped"]
    return Weights({name: found[name] for name in reply["order"]}, ordered=True)


def _explained(error: ChildRefusal) -> Refusal:
    said = error.said.replace("\n", " ")
    if "Unsupported operand" in said:
        raise Unsupported(
            "a pickle of a later protocol than torch writes by itself, which its safe reader does not read",
            hint="save it again where you trust it, without pickle_protocol: torch.save(torch.load(FILE), FILE)",
        )
    if "unexpected EOF" in said:
        raise cut_short("its tensors are longer than what is there of them")
    for mark in ("WeightsUnpickler error:", "Unsupported class"):
        if mark in said:
            short = said[said.index(mark) :].split("Please use")[0][:200]
            return malformed(f"torch refuses it with weights_only=True: {shown(short, 200)}")
    return error


def _no_torch(archive: archives.Archive) -> None:
    for name in archive.names:
        if name.lower().endswith(".npy"):
            refuse_arrays(archive.read(name, MAX_PICKLE), name)
    if any(n.endswith(("/archive_format", "serialized_exported_program.json")) for n in archive.names):
        raise Unsupported("this is a program of torch.export, which is not run here", hint=_RESAVE)
    other_tools.refuse_archive(archive.names)
    nested = [n for n in archive.names if archive.zip.getinfo(n).file_size and _starts_as_zip(archive, n)]
    if nested:
        raise Refusal(
            UNUSUAL,
            f"a zip archive with archives inside ({listed(nested)}) and no data.pkl: not a torch file; not unpacked",
            subject=nested[0],
        )
    raise Unsupported(
        f"this zip archive is no torch file: it has no data.pkl among {listed(archive.names) or 'no entries'}",
        hint="unpack it and name the model inside",
    )


def _starts_as_zip(archive: archives.Archive, name: str) -> bool:
    try:
        with archive.zip.open(name) as file:
            return file.read(4) == archives.MAGIC
    except Exception:  # a damaged entry is reported by whoever needs it
        return False
