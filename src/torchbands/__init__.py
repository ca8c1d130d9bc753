"""torchbands plants, finds and removes backdoors in machine-learning models, and measures all of it honestly.

Public names are loaded when they are first used, so that `import torchbands` and `bands --help` do not pay for torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "core.attack": ("Attack", "Victim"),
    "core.data": ("Column", "Data", "Overlay", "Pixels"),
    "core.defense": (
        "DataFilter",
        "Finding",
        "FittedDetector",
        "InputDetector",
        "ModelDetector",
        "Repair",
        "Suspicion",
        "Training",
    ),
    "core.errors": ("BandsError", "InputError", "MissingExtra", "NotApplicable", "UnknownName", "UnsafeFile"),
    "core.federated": ("Aggregate", "Aggregator", "Server", "Updates"),
    "core.generator": ("Generator",),
    "core.goal": ("ClassGoal", "Goal", "TextGoal"),
    "core.hook": ("BatchHook", "ClientHook", "EnvironmentHook", "Hook", "WeightHook"),
    "core.layers": ("Gate", "Unit"),
    "core.method": ("Method", "method"),
    "core.modality": ("Encoded", "Modality", "Perturbation"),
    "core.model": ("Model",),
    "core.outside": ("allowing",),
    "core.recipe": ("Learner", "Network", "Recipe"),
    "core.registry": ("build", "find", "listing"),
    "core.seeding": ("RowRng", "generator", "seed_of"),
    "core.task": ("Task",),
    "core.trigger": ("Trigger",),
    "scanner.dataset": ("scan_data",),
    "scanner.guard": ("Guard", "Judged"),
    "scanner.in_memory": ("rows_of",),
    "scanner.scan_model": ("scan",),
    "scanner.alerts": ("Alert",),
    "scanner.outcome": ("Outcome",),
    "scanner.reading": ("read_rows",),
    "scanner.recipes": ("OwnNetwork", "OwnTraining"),
    "scanner.reference_training": ("references_of", "train_references"),
    "scanner.references": ("ReferenceSet",),
    "scanner.rows": ("Rows",),
}
_NAMES = {name: module for module, names in _WHERE.items() for name in names}
__all__ = ["__version__", *sorted(_NAMES)]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"torchbands.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'torchbands' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
