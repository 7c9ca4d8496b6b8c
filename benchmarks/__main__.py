"""Measure how fast it is here, and show it; docs/speed.md quotes what was kept.

Give nothing else to do: every number is of this machine as it is while it is measured.
"""

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

from benchmarks.measure import Row

PARTS = {
    "epoch": "One epoch, one thread",
    "floor": "A step and its arithmetic, one thread",
    "step": "A step in other ways, one thread",
    "startup": "Start-up",
    "sweep": "A sweep of eight runs",
    "growth": "Growth",
    "records": "Records of many runs",
    "side_by_side": "The weight sweep with five seeds on a GPU",
    "many": "Runs at a time on a GPU",
}
RESULTS = Path(__file__).parent / "results"


def describe_machine() -> dict[str, str]:
    """Say what the numbers were measured on, and when."""
    import lightning
    import torch

    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(
            (line.split(": ")[1] for line in lines if line.startswith("model name")), model
        )
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "cpu": f"{model}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }


Measured = dict[str, Any]  # a part's "machine" and "rows"


def decimals(value: float) -> int:
    """Return how many digits a measured number is shown with behind the point."""
    return 0 if value >= 100 else 1 if value >= 10 else 2


def tabulate(parts: Mapping[str, Measured]) -> str:
    """Lay the results of parts out for a reader, a machine where it is another than before."""
    lines = ["Medians of n, smallest to largest in brackets.", ""]
    machine: dict[str, str] = {}
    for part, measured in parts.items():
        if measured["machine"] != machine:
            machine = measured["machine"]
            known = [f"{key} {value}" for key, value in machine.items() if value != "none"]
            lines += [f"Measured on {', '.join(known)}:", ""]
        lines += [f"**{PARTS[part]}**", "", "| what | of it | median | n |", "|---|---|---|---|"]
        for each in (Row(**values) for values in measured["rows"]):
            digits = decimals(each.value)
            value, low, high = (
                f"{number:.{digits}f}" for number in (each.value, each.low, each.high)
            )
            spread = "" if each.unit == "%" else f" [{low}, {high}]"
            lines.append(
                f"| {each.subject} | {each.quantity} | {value} {each.unit}{spread} | {each.n} |"
            )
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


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
        if rows := importlib.import_module(f"benchmarks.{part}").measure(given.rounds):
            here = {"machine": describe_machine(), "rows": [asdict(row) for row in rows]}
            measured[part] = here
            if given.keep:
                keep(RESULTS / f"{given.keep}.json", part, here)
    print(tabulate(measured))


def keep(file: Path, part: str, measured: Measured) -> None:
    """Put a part beside those that a file, and the page beside it, already have."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known[part] = measured
    in_order = {each: known[each] for each in PARTS if each in known}
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{json.dumps(in_order, indent=1)}\n", encoding="utf-8")
    file.with_suffix(".md").write_text(tabulate(in_order), encoding="utf-8")


if __name__ == "__main__":
    main()
