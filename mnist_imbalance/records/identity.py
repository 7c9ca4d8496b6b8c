"""What determines a run's result: its hash, and the name of its condition."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from mnist_imbalance.config import CHOICES, compose_with, flatten

NAMED_IF_CHANGED = ("scheduler", "mix", "callbacks", "posthoc", "data/")
# length of training is no condition
BUDGET = {"trainer.max_epochs", "trainer.max_steps", "data.sampler.epochs", "data.sampler.steps"}
SEEDS = {"seed", "data.seed", "data.order_seed"}
NEW_KEYS = {  # keys added later, at the value that all earlier runs had: left out of the hash
    "data.augment": None,
    "data.copied": "minority",
    "data.fill": False,
    "data.minority": [0, 1, 2, 3, 4],
    "data.shots": None,
    "data.sampler._partial_": True,
    "data.sampler._target_": "mnist_imbalance.data.samplers.shuffle",
    "data.source._partial_": True,
    "data.source._target_": "mnist_imbalance.data.source.read_torchvision",
    "data.source.background": "white",
    "data.source.name": "MNIST",
    "data.source.skip_broken": False,
    "data.source.test_fraction": 0.2,
    "data.transforms": [],
    "data.val_fraction": None,
    "model.channels": [6, 16],
    "model.features": [120, 84],
    "model.head": "linear",
    "model.hidden_size": 64,
    "model.scale": 30,
    "posthoc.smoothing": 0,
    "posthoc.tau": None,
    "posthoc.transforms": False,
    "posthoc.weight_decay": 0,
    "model.feature": "last_unit",
    "trainer.max_steps": -1,
    "trainer.test_with": "last",
}
WITHOUT_EFFECT = {  # on the numbers, but for rounding; a run that max_time stops has no result
    *("logger", "metrics", "runs_dir", "threads", "data.dir", "trainer._target_"),
    *("trainer.accelerator", "trainer.devices", "trainer.enable_progress_bar"),
    *("trainer.log_every_n_steps", "trainer.max_time", "trainer.profiler"),
}
AS_GIVEN = {"data.keep", "mix.alpha", "model.output_bias", "scheduler.eta_min"}  # 1.0 is not 1
MOVED = {  # module when the first record of its parts was written → module today, the parts
    "data": ("data.module", "MNISTData"),
    "data.digits": ("data.sources", "read_digits"),
    "data.folder": ("data.sources", "read_folder"),
    "data.profiles": ("data.imbalance", "exactly", "exponential"),
    "data.source": ("data.sources", "read_torchvision"),
    "data.torchvision_sets": ("data.sources", "read"),
    "losses": (*("methods.losses", "MinorityWeightedCrossEntropy", "WeightedCrossEntropy"),),
    "methods": (
        *("methods.losses", "class_balanced", "focal", "inverse_frequency"),
        *("label_aware_smoothing", "ldam", "vs"),
    ),
    "metrics": (
        *("methods.metrics", "auroc", "balanced_accuracy", "ece", "g_mean", "nll", "worst_label"),
    ),
    "mixes": ("methods.mixes", "Mixup", "Remix"),
    "posthoc": (
        *("methods.posthoc", "label_shift", "logit_adjustment", "tau_normalized"),
        *("temperature", "thresholds"),
    ),
    "retraining": ("methods.posthoc", "crt", "lws", "mislas", "ncm"),
}
RENAMED = {  # dotted path of a part today → the path that is hashed
    f"mnist_imbalance.{today}.{name}": f"mnist_imbalance.{first}.{name}"
    for first, (today, *names) in MOVED.items()
    for name in names
}
TODAY = {first: path for path, first in RENAMED.items()}


def rename(values: Any, names: Mapping[str, str]) -> Any:
    """Return nested values in which every string that is one of the names is replaced."""
    if isinstance(values, dict):
        return {key: rename(value, names) for key, value in values.items()}
    if isinstance(values, list):
        return [rename(value, names) for value in values]
    return names.get(values, values) if isinstance(values, str) else values


def to_current(config: DictConfig) -> DictConfig:
    """Return a config, perhaps of an earlier version, with the paths that its parts have today."""
    current: DictConfig = OmegaConf.create(rename(OmegaConf.to_container(config), TODAY))
    return current


def canonical(key: str, value: Any) -> Any:
    """Return a value as it is hashed: 3.0 as 3, and a set of labels in order."""
    if isinstance(value, list):
        whole = [canonical(key, item) for item in value]
        return sorted(whole) if key == "data.minority" else whole
    is_whole = isinstance(value, float) and value.is_integer() and key not in AS_GIVEN
    return int(value) if is_whole else value


def result_config(config: DictConfig) -> dict[str, Any]:
    """Return the values that determine a run's result, ``{"data.keep": 0.1, ...}``, sorted."""
    flat = flatten(rename(OmegaConf.to_container(config, resolve=True), RENAMED))
    return {
        key: canonical(key, flat[key])
        for key in sorted(flat)
        if flat[key] != NEW_KEYS.get(key, ...)
        and not {key.split(".")[0], ".".join(key.split(".")[:2])} & WITHOUT_EFFECT
    }


def source_of(values: Mapping[str, Any]) -> str:
    """Return what determines a run's images, as text."""
    return json.dumps({key: values[key] for key in sorted(values) if key.startswith("data.source")})


def restore(values: Mapping[str, Any], others: DictConfig) -> DictConfig:
    """Return the config of a record's values; keys without effect are those of another config."""
    parts = ("model", "loss", "optimizer", "scheduler", "mix", "posthoc", "callbacks")
    empty: dict[Any, Any] = {part: {} for part in parts} | {"data": {"dir": others.data.dir}}
    config = OmegaConf.create({**others, **empty})
    usual = {key: NEW_KEYS[key] for key in NEW_KEYS if re.fullmatch(r"data\.(\w+\._)?\w+", key)}
    for key, value in {**usual, **values}.items():
        OmegaConf.update(config, key, value)
    return to_current(config)


def hash_config(values: Mapping[str, Any]) -> str:
    """Return the sha256, in hex, of the values that determine a run's result."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def condition_of(
    values: Mapping[str, Any],
    choices: Mapping[str, str],
    compose: Callable[..., DictConfig] = compose_with,
) -> str:
    """Return the name of a run's condition, such as ``weighted, loss.minority_weight=3``."""
    data, loss = choices["data"], choices["loss"]
    usual = own = compose((f"data={data}",), with_hydra=True).hydra.runtime.choices
    if (source := choices.get("data/source")) not in (None, usual["data/source"]):
        own = compose((f"data={data}", f"data/source={source}"), with_hydra=True)
        own = own.hydra.runtime.choices  # a source may choose a profile
    named = {group: choices[group] for group in CHOICES} | {
        group: choice
        for group, choice in choices.items()
        if group.startswith(NAMED_IF_CHANGED) and {choice} != {usual[group], own[group]}
    }
    plain = result_config(compose(tuple(f"{group}={choice}" for group, choice in named.items())))
    parts = [] if data == "imbalanced" and loss != "plain" else [data]
    parts += [] if loss == "plain" else [loss]
    parts += [f"{group}={named[group]}" for group in sorted(named.keys() - set(CHOICES))]
    for key in sorted((values.keys() | plain.keys()) - BUDGET - SEEDS):
        if values.get(key) != plain.get(key) and plain.get(key) != "???":  # a required value
            parts.append(f"{key}={values.get(key)}")
    return ", ".join(parts)


def is_misnamed(run: Any, compose: Callable[..., DictConfig]) -> bool:
    """Tell whether the condition and the choices of a record are not those of its values."""
    chosen = {group: getattr(run, group) for group in CHOICES}
    first, *parts = re.split(r", (?![^\[{]*[\]}])", run.condition)  # a list is one
    known = {*chosen.values()}
    if first in known and any("=" not in part and part not in known for part in parts):
        return False  # an earlier form of a method, which was named by hand
    words = dict(part.split("=", 1) for part in parts if re.match(r"[\w/]+=", part))
    with suppress(MissingConfigException):  # a choice that is gone
        return condition_of(run.config, chosen | words, compose) != str(run.condition)
    return False
