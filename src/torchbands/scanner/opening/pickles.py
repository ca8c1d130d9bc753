"""What a pickle would import and call, read opcode by opcode. Nothing is unpickled here."""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .limits import MAX_OPCODES, MAX_PICKLE
from .refusal import malformed

#: First pickle of a legacy torch file, protocol 2.
TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PARTS = 5

_PLAIN = {
    "collections.OrderedDict",
    "collections.Counter",
    "_codecs.encode",
    *(f"{b}.{n}" for b in ("builtins", "__builtin__") for n in ("set", "bytearray", "complex")),
    "torch.Size",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch._tensor._rebuild_from_type_v2",
    "torch.serialization._get_layout",
}
_PLAIN_TORCH = re.compile(
    r"torch\.((cuda|sparse|storage)\.)*\w+(Storage|Tensor)$"
    r"|torch\.(u?int\d+|float\d\w*|bfloat16|half|double|bool|complex\d+|q\w+)$"
    r"|torch\._utils\._rebuild_\w+$"
)
#: Imports that no model needs and that run commands, code or files.
_OVERT = re.compile(
    r"(os|posix|nt|sys|subprocess|_?posixsubprocess|pty|shutil|socket|_socket|ssl|ctypes|_ctypes|importlib|runpy|code"
    r"|codeop|pickle|_pickle|cPickle|marshal|types|operator|_operator|functools|asyncio|multiprocessing|threading|_thread"
    r"|signal|webbrowser|http|urllib|urllib2|requests|httpx|ftplib|smtplib|telnetlib|xmlrpc|commands|popen2|pathlib|io|_io"
    r"|tempfile|glob|zipfile|tarfile|pip|pkgutil|pydoc|timeit|profile|cProfile|bdb|pdb|trace|doctest|atexit|site|venv"
    r"|distutils|setuptools|cffi|idlelib|lib2to3|torch\.hub|torch\.jit|torch\.utils\.cpp_extension|torch\.storage"
    r"|torch\.serialization|torch\.package|torch\.load|numpy\.testing|numpy\.f2py|numpy\.load|pandas)(\..*)?$"
)
_OVERT_BUILTINS = re.compile(
    r"(builtins|__builtin__)\.(eval|exec|execfile|compile|open|__import__|getattr|setattr|delattr|globals|locals|vars"
    r"|apply|map|filter|reload|input|breakpoint|help|file|classmethod|staticmethod|property|type|super)(\..*)?$"
)
#: What ordinary training scripts keep beside their weights: values, built without running code of anybody.
_VALUES = re.compile(
    r"numpy\.(ndarray|dtype|dtypes\.\w+|(_core|core)\.multiarray\.(scalar|_reconstruct)|(_core|core)\.numeric\._frombuffer)$"
    r"|pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path$|collections\.(defaultdict|deque)$"
    r"|(builtins|__builtin__)\.(list|dict|tuple|int|long|float|str|bool|bytes|frozenset|object|slice|range)$"
    r"|(copyreg|copy_reg)\._reconstructor$|argparse\.Namespace$|types\.SimpleNamespace$"
    r"|datetime\.(datetime|date|time|timedelta|timezone)$|uuid\.UUID$|decimal\.Decimal$|fractions\.Fraction$"
    r"|torch\.per_(tensor|channel)_\w+$|torch\.torch_version\.TorchVersion$|torch\.memory_format$"
    r"|(pytorch_lightning|lightning|lightning_fabric)\.[\w.]*\.AttributeDict$"
)
#: Classes of libraries whose constructors keep what they are given, and run nothing of it.
_LIBRARY = re.compile(
    r"torch\.nn\.(modules|parallel|utils)\.[\w.]*\.?[A-Z]\w*$|sklearn\.[\w.]*\.[A-Z]\w*$"
    r"|joblib\.numpy_pickle\.NumpyArrayWrapper$"
)
#: A class by its name.
_CLASS = re.compile(r"[A-Za-z_][\w.]*\._?[A-Z]\w*$")


@dataclass
class Walk:
    """What was seen.

    Attributes:
        imports: dotted names in order; "?" where a name is computed while unpickling.
        called: imports that are called while unpickling, in place of being the class of what is built; "?" where what
            is called is not known.
    """

    imports: dict[str, None] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    calls: int = 0
    opcodes: int = 0
    end: int = 0
    broken: str = ""

    def foreign(self) -> list[str]:
        """Imports outside of what torch needs to rebuild tensors."""
        return [n for n in self.imports if n not in _PLAIN and not _PLAIN_TORCH.match(n)]

    def builds_objects(self, foreign: Iterable[str]) -> bool:
        """Whether all that is imported beside tensors are classes of objects, as in a whole pickled model.

        Classes of the user's own are only instantiated (NEWOBJ) and filled; what is called is a library's alone.
        """
        names = list(foreign)
        return (
            "?" not in self.called | set(self.imports)
            and not self.overt()
            and all(_LIBRARY.match(n) or (_CLASS.match(n) and n not in self.called) for n in names)
        )

    def overt(self) -> list[str]:
        """Imports that can only be meant to run something, or that hide their name."""
        return [n for n in self.foreign() if n == "?" or _OVERT.match(n) or _OVERT_BUILTINS.match(n)]


def is_value(name: str) -> bool:
    """Whether an import is a plain value's class, which a stand-in replaces without a loss for the weights."""
    return _VALUES.match(name) is not None


def is_legacy_torch(data: bytes | bytearray) -> bool:
    return data.startswith(TORCH_MAGIC)


def looks_like(data: bytes | bytearray) -> bool:
    """Whether the bytes are a pickle of any protocol: a known start, or instructions up to a STOP."""
    if len(data) >= 2 and data[0] == 0x80 and data[1] <= 5:
        return True
    if not data or data[:1] not in b"(]}cCISVULNKMJGX)":
        return False
    walk = walk_one(bytes(data[: 1 << 16]), 0)
    return not walk.broken and walk.opcodes > 1


def walk_all(data: bytes | bytearray) -> Walk:
    """Walk a pickle and whatever pickles follow it. Raises Refusal where it is too long to be looked at.

    A legacy torch file is five pickles and then raw numbers, which nothing unpickles; elsewhere, what follows a STOP
    is walked too: a second pickle can hide there.
    """
    legacy = is_legacy_torch(data)
    stream = bytes(memoryview(data)[:MAX_PICKLE])
    whole, at, part = Walk(), 0, 0
    while at < len(stream) and not (legacy and part == _LEGACY_PARTS):
        one = walk_one(stream, at, MAX_OPCODES - whole.opcodes)
        if part and not legacy and one.broken and not one.imports:
            break
        whole.imports |= one.imports
        whole.called |= one.called
        whole.calls, whole.opcodes, whole.end = whole.calls + one.calls, whole.opcodes + one.opcodes, one.end
        whole.broken = whole.broken or one.broken
        if one.broken:
            break
        at, part = one.end, part + 1
    return whole


def walk_one(data: bytes, start: int, most: int = MAX_OPCODES) -> Walk:
    """Walk one pickle from `start` to its STOP."""
    walk = Walk(end=start)
    stream = io.BytesIO(data)
    stream.seek(start)
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, at in pickletools.genops(stream):
            walk.opcodes += 1
            if walk.opcodes > most:
                raise malformed(f"the pickle has more than {MAX_OPCODES:,} instructions")
            _step(opcode, argument, walk, stack, memo)
            walk.end = (at or 0) + 1
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, ArithmeticError) as error:
        walk.broken = str(error)[:200] or type(error).__name__
    return walk


#: How an import is written: by name in a line each, or as two short texts with marks of the memo behind them.
_LATER = re.compile(
    rb"c([A-Za-z_][\w.]{0,80})\n([A-Za-z_][\w.]{0,80})\n"
    rb"|\x8c.([A-Za-z_][\w.]{0,80})\x94?(?:\x8c.([A-Za-z_][\w.]{0,80})\x94?)\x93",
    re.DOTALL,
)

_MARK = object()


@dataclass(frozen=True)
class _Import:
    """An imported name on the stack."""

    name: str


def _effect(opcode: Any) -> tuple[int, bool, int, int]:
    """How an opcode changes the stack: items popped, then back to a mark?, items popped before it, items pushed."""
    before, marked = opcode.stack_before, pickletools.markobject in opcode.stack_before
    below = before.index(pickletools.markobject) if marked else 0
    return 0 if marked else len(before), marked, below, len(opcode.stack_after)


_EFFECTS = {opcode.name: _effect(opcode) for opcode in pickletools.opcodes}
_CALLS = frozenset(("REDUCE", "OBJ", "INST", "NEWOBJ", "NEWOBJ_EX", "BUILD"))
_STORE, _FETCH = frozenset(("PUT", "BINPUT", "LONG_BINPUT")), frozenset(("GET", "BINGET", "LONG_BINGET"))


def _step(opcode: Any, argument: Any, walk: Walk, stack: list[Any], memo: dict[int, Any]) -> None:
    """Follow one opcode. The stack holds strings where they are known, None for everything else, and marks."""
    name = opcode.name
    if name in _STORE or name == "MEMOIZE":
        memo[len(memo) if argument is None else int(argument)] = stack[-1] if stack else None
        return
    if name in _FETCH or name == "DUP":
        stack.append((stack[-1] if stack else None) if argument is None else memo.get(int(argument)))
        return
    if name == "MARK":
        stack.append(_MARK)
        return
    pushed: Any = None
    if name in ("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
        imported = "?" if name.startswith("EXT") else str(argument).replace(" ", ".", 1)
        if name == "STACK_GLOBAL":
            module, attribute = stack[-2:] if len(stack) >= 2 else (None, None)
            known = isinstance(attribute, str) and isinstance(module, str)
            imported = f"{module}.{attribute}" if known else "?"
        walk.imports[imported] = None
        pushed = _Import(imported) if name != "INST" else None
        if name == "INST":
            walk.called.add(imported)
    elif name in ("REDUCE", "OBJ"):
        callee = stack[-2] if name == "REDUCE" and len(stack) >= 2 else None
        walk.called.add(callee.name if isinstance(callee, _Import) else "?")
    elif name in ("NEWOBJ", "NEWOBJ_EX"):
        depth = 2 if name == "NEWOBJ" else 3
        if len(stack) < depth or not isinstance(stack[-depth], _Import):
            walk.called.add("?")
    walk.calls += name in _CALLS
    pops, marked, below, pushes = _EFFECTS[name]
    if marked:
        while stack and stack.pop() is not _MARK:
            pass
    for _ in range(below if marked else pops):
        if stack and (stack[-1] is not _MARK or name == "POP"):
            stack.pop()
    text = argument if isinstance(argument, str) and ("UNICODE" in name or "STRING" in name) else None
    stack.extend([text if pushed is None else pushed] * pushes)


def later(data: bytes | bytearray, start: int) -> str:
    """A name that runs something, among the bytes behind where a walk ended; "" where there is none.

    Files of joblib have raw arrays between their instructions, behind which nothing can be walked.
    """
    for found in _LATER.finditer(bytes(memoryview(data)[start : start + MAX_PICKLE])):
        name = ".".join(part.decode("latin-1") for part in found.groups() if part)
        if _OVERT.match(name) or _OVERT_BUILTINS.match(name):
            return name
    return ""


def numpy_objects(data: bytes | bytearray) -> bool:
    """Whether the bytes are a .npy array whose elements are pickled."""
    if not data.startswith(b"\x93NUMPY"):
        return False
    head = bytes(data[:4096])
    return re.search(rb"'descr':\s*[^,]*'[|<>=]?O", head) is not None


def said(names: Iterable[str]) -> list[str]:
    """Import names fit for facts."""
    return [n[:200] for n in names][:50]
