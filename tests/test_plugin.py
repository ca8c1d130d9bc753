"""A third party's package adds methods and a kind of sample through an entry point and passes the same contract."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import torchbands

PLUGIN = Path(__file__).parent / "plugin"
SOURCE = Path(torchbands.__file__).parents[1]


def installed(package: Path, into: Path) -> Path:
    """What an installer leaves behind: the package, and its metadata with the entry points of its pyproject."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    for folder in package.iterdir():
        if folder.is_dir():
            shutil.copytree(folder, into / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    info = into / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [
        line
        for group, names in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{k} = {v}" for k, v in names.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(points) + "\n")
    return into


def python(*arguments: str, site: Path, seconds: int = 110) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(SOURCE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=site,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


ASK = """
import json, warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    from torchbands import build, listing
    names = [c.name for c in listing()]
spec = build("quiet").spec() if "quiet" in names else None
print(json.dumps({"names": names, "warned": [str(w.message) for w in seen], "spec": spec}))
"""


def test_a_plug_in_is_found_through_its_entry_point(tmp_path: Path) -> None:
    done = python("-c", ASK, site=installed(PLUGIN, tmp_path))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {"quiet", "noise-prior", "badnets"} <= set(told["names"])
    assert told["spec"]["name"] == "quiet" and told["spec"]["params"]["rate"] == 0.5
    assert not [w for w in told["warned"] if "plug-in" in w]


def test_the_plug_in_passes_the_contract_by_one_line_per_method(tmp_path: Path) -> None:
    site = installed(PLUGIN, tmp_path)
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(PLUGIN / "check_contract.py"), site=site)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "20 passed" in done.stdout


def test_a_broken_plug_in_warns_and_its_host_lives(tmp_path: Path) -> None:
    site = installed(PLUGIN, tmp_path)
    (site / "bands_example" / "quiet.py").write_text("raise RuntimeError('half installed')\n")
    done = python("-c", ASK, site=site)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "badnets" in told["names"] and "quiet" not in told["names"]
    warned = [w for w in told["warned"] if "plug-in" in w]
    assert len(warned) == 1 and "plug-in example (bands_example)" in warned[0] and "half installed" in warned[0]


@pytest.mark.slow
def test_pip_installs_the_plug_in(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="70")
    copy = shutil.copytree(PLUGIN, tmp_path / "source")
    site = tmp_path / "site"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(copy)], check=True, timeout=110)
    told = json.loads(python("-c", ASK, site=site).stdout)
    assert {"quiet", "noise-prior"} <= set(told["names"])
