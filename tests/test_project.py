"""The files by which a project is kept: they agree with one another."""

import re
import tomllib
from itertools import chain

import yaml
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
