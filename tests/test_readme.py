"""What the README shows is what happens."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from torchbands.core.attack import Victim
from torchbands.core.method import DEFENSE_ROLES
from torchbands.core.registry import listing

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs(
    planted_victim: Victim, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.S)
    assert len(code) == 1
    script = tmp_path / "example.py"
    script.write_text(code[0].replace("channels=3, size=32", "channels=1, size=8"))
    clean = planted_victim.task.load("clean")[:]
    runpy.run_path(
        str(script),
        init_globals={"my_network": planted_victim.model.clone().module, "images": clean.x, "labels": clean.y},
    )
    score, target, flagged = capsys.readouterr().out.split()
    assert float(score) >= 0 and 0 <= int(target) < 10 and flagged in ("True", "False", "None")


def test_every_attack_and_defense_is_named() -> None:
    text = README.read_text("utf-8")
    ours = [
        cls for role in ("attack", *DEFENSE_ROLES) for cls in listing(role) if cls.__module__.startswith("torchbands.")
    ]
    assert len(ours) > 20
    assert not [cls.name for cls in ours if f"`{cls.name}`" not in text]
