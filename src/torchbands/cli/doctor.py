"""`bands doctor`: what is here and what is missing, with the line that mends it."""

from __future__ import annotations

import argparse
import platform
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from torchbands import __version__

from . import console

CORE = (
    *("torch", "numpy", "scipy", "scikit-learn", "safetensors", "filelock", "platformdirs", "rapidfuzz", "rich"),
    *("jinja2", "markupsafe", "pillow"),
)
#: Extra -> (distribution, module) pairs it brings.
EXTRAS = {
    "scan": (("fickling", "fickling"),),
    "onnx": (("onnxruntime", "onnxruntime"),),
    "parquet": (("pyarrow", "pyarrow"),),
    "text": (
        ("transformers", "transformers"),
        ("tokenizers", "tokenizers"),
        ("peft", "peft"),
        ("harper-py", "harper"),
    ),
    "control": (("gymnasium", "gymnasium"),),
    "pandas": (("pandas", "pandas"),),
}


def doctor(given: argparse.Namespace) -> int:
    """Say what is installed, which device, data and plug-ins there are. 2 where something required is missing."""
    found = examine()
    missing = [name for name, at in found["packages"].items() if at is None]
    if given.json:
        console.print_json(found)
        return 2 if missing else 0
    print(f"torchbands {found['torchbands']} · Python {found['python']} · {found['platform']}\n")
    rows = [(name, at or "MISSING", "" if at else f"pip install {name}") for name, at in found["packages"].items()]
    for extra, at in found["extras"].items():
        hint = "" if at else f"only for {extra}: pip install 'torchbands[{extra}]'"
        rows.append((f"[{extra}]", "installed" if at else "not installed", hint))
    console.print_table(("package", "version", ""), rows)
    print()
    rows = [(name.replace("_", " "), str(value), "") for name, value in found["device"].items()]
    rows.append(("cache", found["cache"], "change it with: export TORCHBANDS_CACHE=FOLDER"))
    for name, at in found["data"].items():
        rows.append((f"data: {name}", "here" if at else "not fetched", "" if at else f"bands data get {name}"))
    rows += [(f"plug-in: {p['name']}", p["state"], p["module"]) for p in found["plugins"]]
    console.print_table(("", "", ""), rows)
    for warning in found["warnings"]:
        console.note(f"warning: {warning}")
    return 2 if missing else 0


def examine() -> dict[str, Any]:
    """The facts, JSON-ready."""
    packages = {name: _version(name) for name in CORE}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plugins = _plugins(packages["torch"] is not None)
    return {
        "torchbands": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages,
        "extras": {name: all(find_spec(module) for _, module in parts) for name, parts in EXTRAS.items()},
        "device": _device() if packages["torch"] else {},
        "cache": _cache(),
        "data": _data_sets(),
        "plugins": plugins,
        "warnings": [str(w.message) for w in caught],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> dict[str, Any]:
    import torch

    from torchbands.core.devices import default_device
    from torchbands.core.model import fast_dtype

    device = default_device()
    facts: dict[str, Any] = {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"}
    facts["threads"] = torch.get_num_threads()
    if device.type == "cuda":
        facts["memory_gb"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
    facts["bfloat16"] = "yes" if fast_dtype(device) is torch.bfloat16 else "no: float32 is used"
    return facts


def _cache() -> str:
    from torchbands.datasets.cache import cache_root

    return str(cache_root())


def _data_sets() -> dict[str, bool]:
    from torchbands import datasets

    return {name: bool(datasets.status(name)["cached"]) for name in datasets.names()}


def _plugins(loadable: bool) -> list[dict[str, str]]:
    """Every installed plug-in and whether its module can be imported."""
    import importlib

    from torchbands.core.registry import plug_ins

    out = []
    for point in plug_ins():
        state = "not tried: torch is missing"
        if loadable:
            try:
                importlib.import_module(point.value.split(":")[0])
                state = "loaded"
            except Exception as error:
                state = f"broken: {type(error).__name__}: {error}"
        out.append({"name": point.name, "module": point.value, "state": state})
    return out
