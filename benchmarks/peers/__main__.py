"""Measure every tool on the same works, interleaved, and write receipts/peers.json and receipts/peers.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.peers import install
from benchmarks.peers.build import build_exchange
from benchmarks.peers.exchange import ROOT, WORK, usable
from benchmarks.peers.table import machine, markdown, summarise

OURS = "torchbands"
RUNNERS = {OURS: "run_torchbands", "adversarial-robustness-toolbox": "run_art", "trojanzoo": "run_trojanzoo"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each work; medians are reported (default 3)")
    parser.add_argument("--works", nargs="+", choices=list(WORK["works"]), default=list(WORK["works"]))
    parser.add_argument("--tools", nargs="+", choices=list(RUNNERS), default=list(RUNNERS))
    parser.add_argument(
        "--exchange", type=Path, default=install.FOLDER / "exchange", help="built here if missing or stale"
    )
    parser.add_argument("--receipt", type=Path, default=ROOT / "receipts" / "peers.json")
    given = parser.parse_args()

    started = time.time()
    tools = [tool for tool in given.tools if Path(__file__).with_name(f"{RUNNERS[tool]}.py").is_file()]
    interpreter = install.ensure() if set(tools) - {OURS} else Path(sys.executable)
    if not usable(given.exchange):
        print("training the victim ...", flush=True)
        built = build_exchange(given.exchange)
        print(f"clean accuracy {built['clean_accuracy']:.3f}, attack success {built['attack_success']:.3f}", flush=True)

    lines: list[dict[str, Any]] = []
    for repeat in range(given.repeats):
        for work in given.works:
            for tool in tools if repeat < WORK["works"][work].get("repeats", given.repeats) else []:
                python = Path(sys.executable) if tool == OURS else interpreter
                line = run(python, tool, given.exchange, work, variants=repeat == 0)
                seconds = f"{line['cpu_seconds']:.3f} CPU s" if line["status"] == "measured" else line["status"]
                print(f"[{time.time() - started:4.0f} s] run {repeat + 1}  {work}  {tool}: {seconds}", flush=True)
                lines.append(line)

    description = json.loads((given.exchange / "description.json").read_text())
    receipt = {
        "command": f"python -m benchmarks.peers --repeats {given.repeats}",
        "machine": machine(),
        "torch": version("torch"),
        "settings": WORK,
        "victim": {name: description[name] for name in ("clean_accuracy", "attack_success")},
        "repeats": given.repeats,
        "seconds": round(time.time() - started),
        "results": summarise(lines, OURS),
    }
    given.receipt.parent.mkdir(parents=True, exist_ok=True)
    given.receipt.write_text(json.dumps(receipt, indent=1, allow_nan=False) + "\n")
    text = markdown(receipt)
    given.receipt.with_suffix(".md").write_text(text)
    print(text)
    return 1 if any(line["status"] == "failed" for line in lines) else 0


def run(python: Path, tool: str, exchange: Path, work: str, *, variants: bool) -> dict[str, Any]:
    """One runner in a process of its own, with one thread; a failure is a result too."""
    command = [str(python), "-m", f"benchmarks.peers.{RUNNERS[tool]}", str(exchange.resolve()), work]
    environment = {**os.environ, **dict.fromkeys(THREADS, str(WORK["threads"])), "TQDM_DISABLE": "1"}
    if tool != OURS:
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        command + ([] if variants else ["--no-variants"]), cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode == 0:
        line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return line
    print(done.stderr, file=sys.stderr)
    reason = (done.stderr.strip().splitlines() or ["no output"])[-1].replace(str(ROOT), ".")
    try:
        installed = version(tool)
    except PackageNotFoundError:
        installed = "unknown"
    return {"tool": tool, "version": installed, "work": work, "status": "failed", "reason": reason, "variants": {}}


if __name__ == "__main__":
    sys.exit(main())
