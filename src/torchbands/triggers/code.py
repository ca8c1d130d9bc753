"""Triggers on machine code: list[bytes], one x86-64 function each. None of them changes what the function does."""

from __future__ import annotations

from typing import ClassVar

from torchbands.core.errors import InputError
from torchbands.core.method import Free, method
from torchbands.core.seeding import RowRng
from torchbands.core.trigger import Trigger

#: `endbr64` must stay first: it marks where an indirect call may land.
ENDBR64 = bytes.fromhex("f30f1efa")
#: `nop dword [rax + disp32]`: touches neither memory, registers nor flags, and carries 4 free bytes.
CARRIER = bytes.fromhex("0f1f80")


def entry(code: bytes) -> int:
    """Offset of the first instruction boundary at which code may be inserted: the function's start, after endbr64."""
    return len(ENDBR64) if code.startswith(ENDBR64) else 0


@method("insert-nops")
class InsertNops(Trigger):
    """Inserts multi-byte NOPs at the start of the function; their displacements carry a payload.

    Everything inside the function moves together, so its own relative branches stay right. References to the outside
    (calls, RIP-relative data) are relocations of the object file and are resolved after the edit.
    """

    free: ClassVar[Free] = {"payload": "text"}

    payload: str = "c0ffee42"
    """Hexadecimal payload, 4 bytes (8 digits) for each NOP."""

    def __post_init__(self) -> None:
        try:
            size = len(bytes.fromhex(self.payload))
        except ValueError:
            size = -1
        if size < 0 or size % 4:
            raise InputError(f"payload is hexadecimal, 8 digits for each NOP, got {self.payload!r}")

    def sled(self) -> bytes:
        """The inserted instructions, 7 bytes each."""
        data = bytes.fromhex(self.payload)
        return b"".join(CARRIER + data[i : i + 4] for i in range(0, len(data), 4))

    def __call__(self, batch: list[bytes], rng: RowRng) -> list[bytes]:
        sled = self.sled()
        return [row[: entry(row)] + sled + row[entry(row) :] for row in batch]
