"""The layout: nothing is imported from a floor above, and `--help` waits for no PyTorch."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from conftest import REPOSITORY

FLOORS = ["errors", "config", "data", "models", "methods"]
FLOORS += ["records", "training", "sweeps", "report"]
FREE = {"__init__", "__main__", "train", "study", "hydra_plugins"}  # doors, which may import all


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


FILES = {
    name_of(file): file
    for folder in ("mnist_imbalance", "hydra_plugins")
    for file in (REPOSITORY / folder).rglob("*.py")
}


def imported(file: Path) -> set[str]:
    """Our modules that a file imports, within functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in FILES else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def floor(name: str) -> str:
    package, *parts = name.split(".")
    return package if package == "hydra_plugins" else (parts or ["__init__"])[0]


def test_there_is_no_circle() -> None:
    graph = {name: imported(file) & FILES.keys() - {name} for name, file in FILES.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_nothing_is_imported_from_a_floor_above() -> None:
    assert {floor(name) for name in FILES} == {*FLOORS, *FREE}
    height = {name: number for number, name in enumerate(FLOORS)}
    upwards = [
        f"{name} imports {other}"
        for name, file in FILES.items()
        for other in imported(file) & FILES.keys()
        if floor(name) not in FREE
        and other != "mnist_imbalance"
        and (floor(other) in FREE or height[floor(other)] > height[floor(name)])
    ]
    assert upwards == []


STARTS = ("train", "study", "__main__", "config", "records.identity", "training.run")


def test_a_command_waits_for_no_torch_and_trackers_are_imported_when_they_are_chosen() -> None:
    loaded = "print(*{'torch', 'lightning', 'mlflow', 'wandb'} & {*sys.modules})"
    code = [f"import sys, mnist_imbalance.{module}; {loaded}" for module in STARTS]
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True)
    *others, last = done.stdout.splitlines()
    assert {*others} == {""} and {*last.split()} == {"torch", "lightning"}, done.stderr
