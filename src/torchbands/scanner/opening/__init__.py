"""Open a file or folder that may be hostile: told by its content, checked before it is read, never executed.

    suspect = open_suspect("model.safetensors", arch="resnet", modality=Image(channels=3, size=32))
    suspect.model, suspect.alerts, suspect.facts

What each format is allowed to do here:

- safetensors: the header is checked in pure Python, tensors are views of the bytes; no other parser touches the file.
- torch zip and legacy files: the pickle inside is read opcode by opcode without running it; what imports more than
  tensors is refused. The rest is read with `weights_only=True` in a limited child process.
- TorchScript: never run. Its tensors are read like a state dict's; its code stays where it is.
- ONNX: runs in a limited child process and answers with probabilities only.
- Hugging Face folders: the installed transformers' classes, never the folder's code.
- torchbands victims: task, network and weights; never what the card says about a backdoor.

The names are loaded on first use, so that the child process pays only for what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .limits import Limits
    from .suspect import Suspect, open_suspect

__all__ = ["Limits", "Suspect", "open_suspect"]


def __getattr__(name: str) -> Any:
    if name == "Limits":
        from .limits import Limits

        return Limits
    if name in ("Suspect", "open_suspect"):
        from . import suspect

        return getattr(suspect, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
