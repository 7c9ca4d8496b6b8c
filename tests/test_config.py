import re
from pathlib import Path
from typing import Any

import pytest
from conftest import composed
from hydra.utils import get_object
from omegaconf import OmegaConf
from torch import nn

from mnist_imbalance.config import CONF, build, check, compose_with
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import WITHOUT_EFFECT

KNOWN = {  # what the data tells
    "num_classes": 10,
    "image_shape": (1, 28, 28),
    "class_counts": [100] * 10,
    "minority": [0, 1, 2, 3, 4],
    "head": "cosine",
}


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize(
    "group",
    [
        "data",
        "model",
        "loss",
        "optimizer",
        "scheduler",
        "mix",
        "posthoc",
        "metrics",
        "logger",
        "callbacks",
        "debug",
        "trainer",
    ],
)
def test_there_is_what_the_readme_names(group: str) -> None:
    readme = (CONF.parent / "README.md").read_text()
    row = next(line for line in readme.splitlines() if line.startswith(f"| `{group}` |"))
    named = re.findall(r"`(\w+)`", row.split("|")[2])
    assert set(named) == set(choices(group))


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
def test_every_overlay_says_what_it_asks(overlay: str) -> None:
    lines = (CONF / "experiment" / f"{overlay}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# ")


@pytest.mark.parametrize("group", ["data", "model", "loss", "optimizer"])
def test_every_choice_builds(group: str) -> None:
    kinds: dict[str, Any] = {
        "data": MNISTData,
        "model": nn.Module,
        "loss": nn.Module,
        "optimizer": object,
    }
    for choice in choices(group):
        config = composed(f"{group}={choice}")
        if OmegaConf.is_missing(config.loss, "weights"):
            config.loss.weights = [1] * 10  # the study's to choose
        check(config)
        built = build(config, group, KNOWN)
        assert isinstance(built, kinds[group])
        if group == "optimizer":
            built(nn.Linear(1, 1).parameters()).step()


@pytest.mark.parametrize("choice", ["auto", "cpu", "gpu"])
def test_every_trainer_is_lightnings(choice: str) -> None:
    config = composed(f"trainer={choice}")
    check(config)
    assert config.trainer.accelerator == choice
    assert get_object(config.trainer._target_).__name__ == "Trainer"


def test_an_overlay_may_change_anything(tmp_path: Path) -> None:
    overlay = tmp_path / "experiment" / "mine.yaml"
    overlay.parent.mkdir()
    overlay.write_text(
        "# @package _global_\ndefaults: [override /model: cnn]\nseed: 5\ndata: {keep: 0.5}\n"
    )
    config = composed(f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine")
    assert (config.seed, config.data.order_seed, config.data.keep) == (5, 5, 0.5)
    assert config.model._target_.endswith("LeNet5")


def test_folder_names_and_hashes_leave_out_the_same_keys() -> None:
    named = compose_with([], with_hydra=True).hydra.job.config.override_dirname.exclude_keys
    assert WITHOUT_EFFECT - {"trainer._target_", "metrics"} <= set(named)


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_every_experiment_composes(experiment: str) -> None:
    check(composed(f"experiment={experiment}"))


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "seed=x",
        "threads=0",
        "threads=2.0",
        "runs_dir=3",
        "+trainer.limit_val_batches=0",
        "optimizer.lr=0",
        "optimizer.lr=inf",
        "optimizer.momentum=1",
        "optimizer.weight_decay=-1",
        "trainer.max_epochs=0",
        "trainer.max_steps=-2",
        "trainer.devices=0",
        "trainer.devices=auto",
    ],
)
def test_a_wrong_value_is_named_by_its_key(override: str) -> None:
    key, value = override.strip("+").split("=")
    with pytest.raises(ConfigError, match=rf"^{key}: .*, got '?{value}'?$"):
        check(composed(override))


@pytest.mark.parametrize(
    ("group", "overrides", "message"),
    [
        ("data", ["data.keep=1.7"], r"data\.keep: .* at most 1, a list of them, .*, got 1\.7"),
        ("data", ["data.keep=0"], r"data\.keep: .* above 0 .*, got 0"),
        ("data", ["data.keep=[1,x]"], r"data\.keep: .*, got \[1, 'x'\]"),
        ("data", ["data.copies=[]"], r"data\.copies: .* at least 1 item"),
        ("data", ["data.copies=[{angle: 3}]"], r"data\.copies\.0\.noise: Field required"),
        ("data", ["data.batch_size=0"], r"data\.batch_size: .* greater than 0, got 0"),
        ("loss", ["loss=weighted", "loss.minority_weight=0"], r"loss\.minority_weight: .* got 0"),
        ("loss", ["loss=weighted", "loss.normalize=x"], r"loss\.normalize: .*, got .x."),
        ("loss", ["loss=per_label", "loss.weights=[1,2]"], r"loss\.weights: there must be 10"),
        ("mix", ["mix=mixup", "mix.alpha=0"], r"mix\.alpha: .* equal to 0\.01, got 0"),
        ("mix", ["mix=remix", "mix.kappa=nan"], r"mix\.kappa: .* finite number, got nan"),
        ("mix", ["mix=remix", "mix.tau=2"], r"mix\.tau: .* equal to 1, got 2"),
        ("model", ["model.output_bias=x"], r"model\.output_bias: .* valid number"),
        ("optimizer", ["optimizer._target_=no.such"], r"optimizer: Error loading 'no\.such'"),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_built(group: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        build(composed(*overrides), group, KNOWN)
