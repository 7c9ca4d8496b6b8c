"""Measure how fast it is here, and write what docs/speed.md quotes.

Give nothing else to do: every number is of this machine as it is while it is measured.
"""

import argparse
import datetime
import importlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import Row

PARTS = {
    "epoch": "One epoch, one thread",
    "floor": "A step and its arithmetic, one thread",
    "step": "A step in other ways, one thread",
    "startup": "Start-up",
    "sweep": "A sweep of eight runs",
    "growth": "Growth",
    "side_by_side": "The weight sweep with five seeds on a GPU",
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


def tabulate(machine: dict[str, str], measured: dict[str, list[dict[str, object]]]) -> str:
    """Lay the results out for a reader."""
    said = ", ".join(f"{key} {value}" for key, value in machine.items() if value != "none")
    lines = [f"Measured on {said}. Medians of n, smallest to largest in brackets.", ""]
    for part, rows in measured.items():
        lines += [f"**{PARTS[part]}**", "", "| what | of it | median | n |", "|---|---|---|---|"]
        for each in map(lambda values: Row(**values), rows):  # type: ignore[arg-type]
            digits = 0 if each.value >= 100 else 1 if each.value >= 10 else 2
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
    parser.add_argument("--name", default="cpu", help="of the two files in benchmarks/results")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of everything")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    file = RESULTS / f"{given.name}.json"
    known = json.loads(file.read_text(encoding="utf-8"))["measured"] if file.exists() else {}
    for part in given.parts or PARTS:
        print(f"{part} …", file=sys.stderr, flush=True)
        rows = importlib.import_module(f"benchmarks.{part}").measure(given.rounds)
        if not rows:
            continue
        known[part] = [asdict(row) for row in rows]
        machine = describe_machine()
        measured = {part: known[part] for part in PARTS if part in known}
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps({"machine": machine, "measured": measured}, indent=1)
        file.write_text(f"{text}\n", encoding="utf-8")
        file.with_suffix(".md").write_text(tabulate(machine, measured), encoding="utf-8")
    if known:
        print(file.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
