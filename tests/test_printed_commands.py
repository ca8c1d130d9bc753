"""A command that is printed works when it is pasted."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import torchbands as tb
from torchbands.cli import main
from torchbands.cli.parser import make_parser as parser
from torchbands.cli.printed_command import concrete, opening
from torchbands.modalities.image import Image

SOURCE = Path(tb.__file__).parent
#: What is put together at run time, as one word.
HOLE = "HOLE"


def texts(path: Path) -> list[str]:
    """Every text of a source file, with holes where values go in; docstrings are read by programmers alone."""
    tree, found, docs = ast.parse(path.read_text("utf-8")), list[str](), set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            docs |= {id(part) for part in node.values}
            parts = [str(p.value) if isinstance(p, ast.Constant) else HOLE for p in node.values]
            found.append("".join(parts))
    every = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docs)
    return found + [node.value for node in every if isinstance(node.value, str)]


def commands(text: str) -> list[list[str]]:
    """The words of each command in a text, up to where the sentence goes on."""
    found = re.findall(r"(?:^|[\s(`])(bands (?:scan|refs|guard|repair|data|bench) [^\n;`)]*)", text)
    return [re.split(r"[,.:]? (?:and|or|then|again|where)\b|\. |, |: ", command)[0].split() for command in found]


def known(words: list[str]) -> argparse.ArgumentParser | None:
    """The parser of a command; None where it has none."""
    at: argparse.ArgumentParser = parser()
    for word in words[1:]:
        groups = [a for a in at._actions if isinstance(a, argparse._SubParsersAction)]
        if not groups:
            return at
        if word not in groups[0].choices:
            return None
        at = groups[0].choices[word]
    return at


def test_every_command_in_a_message_is_there_with_its_flags() -> None:
    seen = 0
    for path in sorted(SOURCE.rglob("*.py")):
        for words in (words for text in texts(path) for words in commands(text)):
            at = known(words)
            assert at is not None, (path, words)
            flags = {flag for action in at._actions for flag in action.option_strings}
            given = {w.split("=")[0] for w in words if w.startswith("-") and w.strip("-")}
            assert given <= flags | {"--help"}, (path, words, given - flags)
            seen += 1
    assert seen > 30


def test_placeholders_become_what_was_typed() -> None:
    given = argparse.Namespace(
        suspect="my m.pt", data="d e.npz", arch="./net.py:Net", mean=(0.5, 0.25), class_names="a,b", size=None
    )
    flags = " --arch ./net.py:Net --class-names a,b --mean 0.5,0.25"
    assert opening(given) == flags
    said = concrete("look: bands scan model SUSPECT --data CLEAN --train-references", given)
    assert said == f"look: bands scan model 'my m.pt'{flags} --data 'd e.npz' --train-references"
    assert shlex.split(said)[3:5] == ["model", "my m.pt"]
    anew = concrete("bands scan model SUSPECT --data CLEAN --class-names b,a", given)
    assert anew.count("--class-names") == 1


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small network that knows two classes of images, in a folder with a space in its name."""
    at = tmp_path / "in here"
    at.mkdir()
    monkeypatch.chdir(at)
    torch.manual_seed(0)
    y = np.arange(200) % 2
    x = np.random.default_rng(0).integers(0, 60, (200, 3, 16, 16)).astype(np.uint8)
    x[y == 1, :, 2:7, 2:7] += 120
    np.savez("c d.npz", x=x, y=y)
    net = tb.build("plain-cnn", "network").build(Image(channels=3, size=16), 2)  # type: ignore[attr-defined]
    steps, rows = torch.optim.Adam(net.parameters(), 2e-3), torch.tensor(x).float() / 255
    for _ in range(60):
        steps.zero_grad()
        torch.nn.functional.cross_entropy(net((rows - 0.25) / 0.5), torch.tensor(y)).backward()
        steps.step()
    save_file({k: v for k, v in net.state_dict().items() if "normalize" not in k}, "m m.safetensors")
    return at


def pasted(text: str, start: str) -> list[str]:
    """The words of the command after `start`, as a shell splits them."""
    return shlex.split(text.split(start)[1].splitlines()[0])


def test_what_a_repair_and_a_scan_print_can_be_pasted(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opens = ["--arch", "plain-cnn", "--mean", "0.25", "--std", "0.5", "--class-names", "dark,square"]
    more = ["--data", "c d.npz", "--profile", "fast"]
    assert main(["repair", "m m.safetensors", *opens, *more, "-o", "re paired"]) == 5
    again = pasted(capsys.readouterr().out, "scan it again: bands ")
    assert main([*again, "--profile", "fast", "--format", "json=s.json"]) == 3
    assert any(line["score"] is not None for line in json.loads(Path("s.json").read_text())["ledger"])
    step = next(s for s in capsys.readouterr().out.splitlines() if "--train-references" in s)
    words = pasted(step, "bands ")
    small = ["-n", "1", "--epochs", "1", "--one-recipe", "--profile", "fast"]
    assert main([*words, *small]) == 3 and "references: " in capsys.readouterr().err
    assert main(["refs", "train", "--like", "m m.safetensors", *opens, *more, "-n", "1", "--epochs", "1",
                 "--one-recipe", "-o", "r s"]) == 0  # fmt: skip
    assert "too few for alpha" in capsys.readouterr().err


def test_code_beside_the_suspect_is_named_as_it_can_be_typed(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at / "mynet.py").write_text(
        "import json\nfrom torchbands import build\nfrom torchbands.modalities.image import Image\n"
        "def net(): return build('plain-cnn', 'network').build(Image(channels=3, size=16), 2)\n"
    )
    scan = ["scan", "model", "m m.safetensors", "--data", "c d.npz", "--profile", "fast", "--mean", "0.25"]
    assert main([*scan, "--arch", "mynet:net"]) == 4
    said = capsys.readouterr().err
    assert "mynet.py lies beside the suspect" in said and "no module named" not in said.lower()
    assert main([*scan, *pasted(said, "if you wrote it yourself: ")]) == 3


def test_adapters_and_folders_without_a_model_say_what_to_do(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at / "lora").mkdir()
    save_file({"a": torch.ones(1)}, at / "lora" / "adapter_model.safetensors")
    (at / "lora" / "README.md").write_text("x")
    assert main(["scan", "model", "lora"]) == 3
    said = capsys.readouterr().err
    assert "'adapter_model.safetensors'" in said and "README" not in said
    (at / "lora" / "adapter_config.json").write_text("{}")
    assert main(["scan", "model", "lora"]) == 3
    assert "merge_and_unload" in capsys.readouterr().err
