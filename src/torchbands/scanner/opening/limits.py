"""How much a suspect may cost, and the fixed caps on what its files may claim."""

from __future__ import annotations

from dataclasses import dataclass

from torchbands.core.errors import InputError

MB = 1 << 20

#: Longest safetensors header (the format allows 100 MB; the largest public models need about 1 MB).
MAX_HEADER = 16 * MB
#: Tensors in one file, entries in one zip, files in one folder.
MAX_TENSORS, MAX_ENTRIES, MAX_FILES = 50_000, 50_000, 2_000
#: A JSON file beside the weights (config, card), and a tokenizer.
MAX_JSON, MAX_TOKENIZER = 4 * MB, 64 * MB
#: The instructions of a pickle, in bytes and in number.
MAX_PICKLE, MAX_OPCODES = 64 * MB, 500_000
#: Uncompressed over compressed size of one zip entry.
MAX_RATIO = 100
#: Classes of a classifier.
MAX_CLASSES = 100_000
#: Names of tensors, and tensor axes.
MAX_NAME, MAX_AXES = 1_000, 8
#: Edge of an image, and channels.
MAX_EDGE, MAX_CHANNELS = 1024, 16
#: Tokens of a text that are read.
MAX_TEXT = 512
#: One answer of a child process.
MAX_REPLY = 64 * MB
#: How long a child may take to import its libraries, in seconds; nothing of the suspect runs in this time.
START_SECONDS = 180.0


@dataclass(frozen=True)
class Limits:
    """What opening one suspect may cost.

    Attributes:
        seconds: longest time of each step in the child process (one batch, for ONNX).
        megabytes: largest file, and largest memory a child may take beyond its libraries.
    """

    seconds: float = 60.0
    megabytes: int = 4096

    def __post_init__(self) -> None:
        if not self.seconds > 0 or self.megabytes < 1:
            raise InputError(
                f"limits are positive, got seconds={self.seconds}, megabytes={self.megabytes}",
                hint="the defaults are Limits(seconds=60, megabytes=4096), or --time-limit 60 --memory-limit 4096",
            )

    @property
    def bytes(self) -> int:
        return self.megabytes * MB
