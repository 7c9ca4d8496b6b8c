"""The project's files: no import from a floor above, and all agree with one another and git."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import yaml
from conftest import REPOSITORY, finish, start
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FLOORS = ["errors", "config", "data", "models", "methods"]
FLOORS += ["records", "training", "sweeps", "report"]
FREE = {"__init__", "__main__", "train", "study", "hydra_plugins"}  # doors, which may import all
FILES = {
    ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): file
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


def test_a_command_waits_for_no_torch_and_trackers_are_imported_when_they_are_chosen() -> None:
    starts = ("train", "study", "__main__", "config", "records.identity", "training.run")
    loaded = "print(*{'torch', 'lightning', 'mlflow', 'wandb'} & {*sys.modules})"
    code = [f"import sys, mnist_imbalance.{module}; {loaded}" for module in starts]
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True)
    *others, last = done.stdout.splitlines()
    assert {*others} == {""} and {*last.split()} == {"torch", "lightning"}, done.stderr


PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_the_workflow_calls_what_one_calls_oneself() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    newest, known_good = workflow["jobs"]["newest"], workflow["jobs"]["known_good"]
    assert newest["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == ">=3.11"
    for job in (newest, known_good):
        assert job["steps"][-1] == {"run": ".ci/run"}
    assert known_good["env"]["PIP_CONSTRAINT"].endswith("/constraints.txt")


def test_the_constraints_hold_every_package_that_is_named_and_nothing_of_one_machine() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()[1:]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.a-z]+", line) for line in lines)
    pinned = dict(line.split("==") for line in lines)
    extras = chain.from_iterable(PROJECT["optional-dependencies"].values())
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


def test_git_has_nothing_to_ask_about_after_a_sweep_in_a_clone(tmp_path: Path) -> None:
    clone = ["git", "clone", "--quiet", "--shared", str(REPOSITORY), str(tmp_path / "clone")]
    subprocess.run(clone, check=True)
    sweep = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "seed=0,1"]
    short = ["data/source=debug", "trainer.max_epochs=1"]
    finish(start("train", *sweep, *short, place=tmp_path / "clone"))
    assert len([*tmp_path.rglob("result.json")]) == 2
    status = ["git", "-C", str(tmp_path / "clone"), "status", "--porcelain"]
    assert subprocess.run(status, capture_output=True, check=True).stdout == b""
