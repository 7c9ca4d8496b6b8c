"""The examples of docs/extend.md, exactly as they are printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from mnist_imbalance.records.result import read_record

PAGE = (REPOSITORY / "docs" / "extend.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
FILE = re.compile(r"`((?:conf|mnist_imbalance)/[\w/]+\.\w+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"```bash\n(.*?)```", re.DOTALL)
# commands of one module each, each in a folder of its own; a process each would take minutes
ONE_BY_ONE = """
import os, runpy, shlex, sys
for place, command in zip(sys.argv[1::2], sys.argv[2::2]):
    os.chdir(place)
    python, option, module, *given = shlex.split(command)
    assert (python, option) == ("python", "-m")
    sys.argv[:] = [module, *given]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the files of all examples."""
    place = tmp_path_factory.mktemp("extended")
    for folder in ("conf", "mnist_imbalance", "hydra_plugins"):
        shutil.copytree(REPOSITORY / folder, place / folder)
    (place / "data").symlink_to(REPOSITORY / "data")
    (place / "results").mkdir()
    for file, text in FILE.findall(PAGE):
        assert not (place / file).exists(), file
        (place / file).write_text(text, encoding="utf-8")
    return place


def command_of(section: str) -> str:
    [command] = COMMAND.findall(SECTIONS[section])
    assert isinstance(command, str)
    return command


def run(place: Path, command: str | list[str]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(place)}
    shell = isinstance(command, str)
    done = subprocess.run(
        command, shell=shell, cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def trained(extended: Path) -> Path:
    """A folder for each section but the last, in which its command was given."""
    commands = []
    for section in [*SECTIONS][:-1]:
        (extended / section).mkdir()
        (extended / section / "data").symlink_to(REPOSITORY / "data")
        commands += [str(extended / section), command_of(section)]
    run(extended, [sys.executable, "-c", ONE_BY_ONE, *commands])
    return extended


def test_every_part_has_an_example() -> None:
    parts = ("loss", "mix", "sampler", "profile", "source", "model", "metric")
    assert list(SECTIONS) == [*(f"A {part}" for part in parts), "Transforms", "An overlay"]
    for part in parts:
        files = FILE.findall(SECTIONS[f"A {part}"])
        assert [Path(file).suffix for file, _ in files] == [".py", ".yaml"]


@pytest.mark.parametrize(
    ("section", "known_by"),
    [
        ("A loss", {"loss": "log_weighted"}),
        ("A mix", {"condition": "imbalanced, data/source=debug, mix=halves"}),
        ("Transforms", {"condition": "imbalanced, data/source=debug, data/transforms=rotated"}),
        ("A sampler", {"condition": "imbalanced, data/sampler=capped, data/source=debug"}),
        ("A profile", {"condition": "imbalanced, data/profile=linear, data/source=debug"}),
        ("A source", {"groups": {"1": [1], "0": [0], "all": [0, 1]}}),
        ("A model", {"model": "linear"}),
        ("A metric", {"condition": "imbalanced, data/source=debug"}),
    ],
)
def test_an_example_can_be_trained(
    trained: Path, section: str, known_by: dict[str, object]
) -> None:
    [file] = (trained / section / "runs").rglob("result.json")
    result = read_record(file.parent)
    assert result
    record = result.model_dump()
    assert {key: record[key] for key in known_by} == known_by
    if section == "A sampler":
        seen = [sum(row) for row in result.train.confusion]
        assert min(seen) > 0.6 * sum(seen) / 10  # of each label alike, though few of 0-4
    if section == "A profile":
        assert result.train_counts == sorted(result.train_counts, reverse=True)
        assert result.train_counts[0] == 10 * result.train_counts[-1]
    if section == "A metric":
        assert result.test.accuracy < (result.test.metrics["top_two"] or 0) < 1
        assert -1 <= (result.test.metrics["mcc"] or 0) <= 1


def test_an_overlay_is_a_condition_of_the_report(extended: Path) -> None:
    run(extended, command_of("An overlay"))
    tables = extended / "runs" / "report" / "tables"
    conditions = (tables / "all_conditions.csv").read_text()
    assert "log_weighted" in conditions
    assert "linear" in conditions
