import re
from pathlib import Path
from typing import Any

import pytest
from conftest import composed
from omegaconf import OmegaConf
from torch import nn

from mnist_imbalance.config import CONF, build, check, compose_with
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.records.identity import WITHOUT_EFFECT

KINDS = {"data": MNISTData, "model": nn.Module, "loss": nn.Module, "optimizer": object}
KNOWN: dict[str, Any] = {"num_classes": 10, "image_shape": (1, 28, 28), "head": "cosine"}
KNOWN |= {"class_counts": [100] * 10, "minority": [0, 1, 2, 3, 4]}  # what the data tells


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def test_there_is_what_the_readme_names() -> None:
    readme = (CONF.parent / "README.md").read_text()
    rows = re.findall(r"^\| (`.+`) \|(.*)\|$", readme, re.MULTILINE)
    named = {"experiment": {*choices("experiment")}}  # linked only
    for names, text in rows:
        groups = re.findall(r"[\w/]+", names)
        parts = text.split(";") if len(groups) > 1 else [text]
        for group, part in zip(groups, parts, strict=True):
            named.setdefault(group, {*re.findall(r"`(\w+)`", part)})
    folders = {file.parent.relative_to(CONF).as_posix() for file in CONF.rglob("*.yaml")}
    assert named == {group: {*choices(group)} for group in folders - {".", "study"}}


def test_there_is_what_the_assumptions_name() -> None:
    page = (CONF.parent / "docs" / "assumptions.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    named = [key for row in rows for key in re.findall(r"`([\w.]+\.\w+(?:=.+?)?)`", row[3])]
    keys = [key for key in named if not key.endswith(".py")]
    assert {"data.copied=all", "trainer.max_steps=11650"} <= set(keys)
    for key in keys:
        loss = ["loss=weighted"] if key.startswith("loss.") else []
        config = composed(*loss, *([key] if "=" in key else []))
        check(config)
        assert OmegaConf.select(config, key.partition("=")[0], default="no") != "no"


@pytest.mark.parametrize("overlay", choices("experiment"))
def test_every_overlay_composes_and_says_what_it_asks(overlay: str) -> None:
    lines = (CONF / "experiment" / f"{overlay}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# ")
    if f"experiment={overlay} " not in (Path(__file__).parent / "golden/plan.csv").read_text():
        check(composed(f"experiment={overlay}"))


@pytest.mark.parametrize(("group", "kind"), KINDS.items())
def test_every_choice_builds(group: str, kind: Any) -> None:
    for choice in choices(group):
        config = composed(f"{group}={choice}", "trainer=gpu")
        if OmegaConf.is_missing(config.loss, "weights"):
            config.loss.weights = [1] * 10  # the study's to choose
        check(config)
        built = build(config, group, KNOWN)
        assert isinstance(built, kind)
        if group == "optimizer":
            built(nn.Linear(1, 1).parameters()).step()


def test_folder_names_and_hashes_leave_out_the_same_keys() -> None:
    named = compose_with([], with_hydra=True).hydra.job.config.override_dirname.exclude_keys
    assert WITHOUT_EFFECT - {"trainer._target_", "metrics"} <= set(named)
