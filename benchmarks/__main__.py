"""Measure how fast an idle machine is, and show it; benchmarks/results/ has what was kept."""

import argparse
import datetime
import importlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch

from benchmarks.measure import Row
from mnist_imbalance.training.folder import describe

PARTS = {  # the function that measures it, and its title
    "epoch": ("epoch.measure", "One epoch, one thread"),
    "startup": ("commands.startup", "Start-up"),
    "sweep": ("commands.sweep", "A sweep of eight runs"),
    "growth": ("growth.measure", "Growth"),
    "records": ("records.measure", "Records of many runs"),
    "side_by_side": ("commands.side_by_side", "The weight sweep with five seeds on a GPU"),
    "many": ("growth.many", "Runs at a time on a GPU"),
}
RESULTS = Path(__file__).parent / "results"
Measured = dict[str, Any]  # a part's "machine" and "rows"


def describe_machine() -> dict[str, str]:
    """Return the machine and the libraries that the numbers were measured on, and the date."""
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "cpu": f"{describe(torch.device('cpu')).split(', ')[1]}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }


def tabulate(parts: Mapping[str, Measured]) -> str:
    """Return the results of parts as a page, with the machine where it changes."""
    lines = ["Medians of n, smallest to largest in brackets.", ""]
    machine: dict[str, str] = {}
    for part, measured in parts.items():
        if measured["machine"] != machine:
            machine = measured["machine"]
            known = [f"{key} {value}" for key, value in machine.items() if value != "none"]
            lines += [f"Measured on {', '.join(known)}:", ""]
        lines += [f"**{PARTS[part][1]}**", "", "| what | of it | median | n |", "|---|---|---|---|"]
        for each in (Row(**values) for values in measured["rows"]):
            digits = 0 if each.value >= 100 else 1 if each.value >= 10 else 2
            numbers = (each.value, each.low, each.high)
            value, low, high = (f"{number:.{digits}f}" for number in numbers)
            shown = f"{value} {each.unit} [{low}, {high}]"
            lines.append(f"| {each.subject} | {each.quantity} | {shown} | {each.n} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def keep(file: Path, part: str, measured: Measured) -> None:
    """Put a part beside the others in a file, and into the page beside it."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known[part] = measured
    in_order = {name: known[name] for name in PARTS if name in known}
    file.write_text(f"{json.dumps(in_order, indent=1)}\n", encoding="utf-8")
    file.with_suffix(".md").write_text(tabulate(in_order), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--keep", metavar="NAME", help="write benchmarks/results/NAME.json and .md")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of everything")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    measured = {}
    for part in given.parts or PARTS:
        print(f"{part} …", file=sys.stderr, flush=True)
        module, _, function = PARTS[part][0].partition(".")
        rows = getattr(importlib.import_module(f"benchmarks.{module}"), function)(given.rounds)
        if rows:
            measured[part] = {"machine": describe_machine(), "rows": [*map(asdict, rows)]}
            if given.keep:
                keep(RESULTS / f"{given.keep}.json", part, measured[part])
    print(tabulate(measured))


if __name__ == "__main__":
    main()
