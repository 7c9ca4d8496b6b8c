"""Which room imports which: nothing from a room above, no circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = "mnist_imbalance"
COMMANDS = {"train", "study", "search", "counts", "report"}


def imported(file: Path) -> set[str]:
    """The package's modules that a file imports, at the top or later."""
    named = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            named |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
    return {name.removesuffix(".__init__") for name in named} & MODULES.keys()


def module(file: Path) -> str:
    dotted = ".".join(file.relative_to(REPOSITORY).with_suffix("").parts)
    return dotted.removesuffix(".__init__")


MODULES = {module(file): file for file in (REPOSITORY / PACKAGE).rglob("*.py")}
IMPORTS = {name: imported(file) for name, file in MODULES.items()}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_no_circle() -> None:
    order = list(TopologicalSorter(IMPORTS).static_order())  # raises CycleError
    assert len(order) == len(MODULES) > 40


def test_no_circle_of_rooms() -> None:
    rooms: dict[str, set[str]] = {}
    for name, others in IMPORTS.items():
        rooms.setdefault(room(name), set()).update(map(room, others))
    TopologicalSorter({name: others - {name, ""} for name, others in rooms.items()}).prepare()


@pytest.mark.parametrize(
    ("below", "above"),
    [
        ("data", {"models", "losses", "classifier", "fit", "runs", "config"}),
        ("models", {"data", "losses", "classifier", "fit", "runs", "config"}),
        ("losses", {"data", "models", "classifier", "fit", "runs", "config"}),
        ("classifier", {"data", "models", "losses", "fit", "runs", "config"}),
        ("config", {"data", "models", "losses", "classifier", "fit", "runs", "commandline"}),
        ("runs", {"data", "classifier", "fit", "config", "commandline", "plan"}),
        ("fit", {"commandline", "jobs", "plan", "summary", "batched"}),
        ("plan", {"fit", "jobs", "commandline", "classifier", "data"}),
        ("batched", {"commandline", "plan"}),
        ("trials", {"commandline", "plan", "fit", "summary"}),
    ],
)
def test_nothing_is_imported_from_a_room_above(below: str, above: set[str]) -> None:
    for name, others in IMPORTS.items():
        if room(name) == below:
            assert not {room(other) for other in others} & (above | COMMANDS), name


def test_the_report_is_known_to_the_commands_alone() -> None:
    for name, others in IMPORTS.items():
        if room(name) not in COMMANDS:
            assert "report" not in map(room, others), name


@pytest.mark.parametrize("name", ["config", "plan", "runs", "commandline", "jobs"])
def test_what_help_needs_imports_neither_torch_nor_lightning_itself(name: str) -> None:
    seen, waiting = set(), {f"{PACKAGE}.{name}"}
    while waiting:
        one = waiting.pop()
        seen.add(one)
        tree = ast.parse(MODULES[one].read_text(encoding="utf-8"))
        at_the_top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in at_the_top:
            names = [alias.name for alias in node.names]
            top = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            assert not {each.split(".")[0] for each in top} & {"torch", "lightning"}, one
            if isinstance(node, ast.ImportFrom):
                both = {*top, *(f"{node.module}.{each}" for each in names)}
                waiting |= (both & MODULES.keys()) - seen
