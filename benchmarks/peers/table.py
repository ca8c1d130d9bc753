"""From the runners' lines to medians, ratios and a Markdown table."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """The hardware that the seconds belong to."""
    models = [platform.processor() or platform.machine()]
    if (info := Path("/proc/cpuinfo")).is_file():
        models = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ] or models
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": models[0], "cores": os.cpu_count(), "python": platform.python_version(), "load_at_the_end": load}


def summarise(lines: Iterable[Mapping[str, Any]], ours: str) -> list[dict[str, Any]]:
    """One row per (work, variant, tool): every run's seconds, their medians, the last run's quality, ours / peer.

    The ratio compares CPU seconds with our row of the same work and variant, or of the work itself where we have
    no such variant.
    """
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for line in lines:
        pieces = {"": line} | dict(line["variants"])
        for variant, piece in pieces.items():
            key = (line["work"], variant, line["tool"])
            row = rows.setdefault(
                key, {"work": key[0], "variant": variant, "tool": key[2], "cpu_runs": [], "wall_runs": []}
            )
            row |= {name: line.get(name) for name in ("version", "status", "reason", "threads", "notes")}
            row["quality"] = piece.get("quality") or {}
            if piece.get("cpu_seconds") is not None:
                row["cpu_runs"].append(piece["cpu_seconds"])
                row["wall_runs"].append(piece["wall_seconds"])
    for row in rows.values():
        row["cpu_seconds"] = statistics.median(row["cpu_runs"]) if row["cpu_runs"] else None
        row["wall_seconds"] = statistics.median(row["wall_runs"]) if row["wall_runs"] else None
    for (work, variant, tool), row in rows.items():
        mine = rows.get((work, variant, ours)) or rows.get((work, "", ours)) or {}
        measured = tool != ours and mine.get("cpu_seconds") is not None and row["cpu_seconds"]
        row["ours_over_peer"] = mine["cpu_seconds"] / row["cpu_seconds"] if measured else None
    return sorted(rows.values(), key=lambda row: (row["work"], row["variant"], row["tool"] != ours, row["tool"]))


def markdown(receipt: Mapping[str, Any]) -> str:
    """The table that people read."""
    cpu, victim = receipt["machine"], receipt["victim"]
    head = (
        f"One thread of {cpu['cpu']}, torch {receipt['torch']}, medians of {receipt['repeats']} interleaved runs"
        f" (variants and works marked so: one run). Victim: clean accuracy {victim['clean_accuracy']:.3f},"
        f" attack success {victim['attack_success']:.3f}.\n\n"
    )
    table = ["| work | tool | CPU s | wall s | ours / peer | quality |", "|---|---|---:|---:|---:|---|"]
    for row in receipt["results"]:
        name = row["work"] + (f" ({row['variant']})" if row["variant"] else "")
        seconds = [_number(row["cpu_seconds"]), _number(row["wall_seconds"]), _number(row["ours_over_peer"])]
        quality = _quality(row["quality"]) if row["status"] == "measured" else f"{row['status']}: {row['reason']}"
        cells = [name, f"{row['tool']} {row['version']}", *seconds, quality]
        table.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    notes = sorted({(row["tool"], row["work"], note) for row in receipt["results"] for note in row["notes"] or []})
    rest = [f"- {tool}, {work}: {note}" for tool, work, note in notes]
    works = [f"- {work}: {settings['what']}" for work, settings in receipt["settings"]["works"].items()]
    return head + "\n".join(table) + "\n\nThe works:\n\n" + "\n".join(works) + "\n\nNoted:\n\n" + "\n".join(rest) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _quality(values: Mapping[str, Any]) -> str:
    """Numbers and yes/no; lists stay in the JSON."""
    shown = {k.replace("_", " "): v for k, v in values.items() if not isinstance(v, list)}
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
