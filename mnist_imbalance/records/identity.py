"""What determines a run's result: its hash, and the name of its condition."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_imbalance.config import compose_with

CHOICES = ("model", "data", "loss", "optimizer")  # config groups that a record names
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
    "data.source.name": "MNIST",
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
    "trainer.max_steps": -1,
}
WITHOUT_EFFECT = {  # on the numbers, but for rounding; a run that max_time stops has no result
    *("logger", "metrics", "runs_dir", "threads", "data.dir", "trainer._target_"),
    *("trainer.accelerator", "trainer.devices", "trainer.enable_progress_bar"),
    *("trainer.max_time", "trainer.profiler"),
}
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


def rename(values: Any, names: Mapping[str, str]) -> Any:
    """Return nested values in which every string that is one of the names is replaced."""
    if isinstance(values, dict):
        return {key: rename(value, names) for key, value in values.items()}
    if isinstance(values, list):
        return [rename(value, names) for value in values]
    return names.get(values, values) if isinstance(values, str) else values


def to_current(config: DictConfig) -> DictConfig:
    """Return a config, perhaps of an earlier version, with the paths that its parts have today."""
    today = {first: path for path, first in RENAMED.items()}
    current: DictConfig = OmegaConf.create(rename(OmegaConf.to_container(config), today))
    return current


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key."""
    flat = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return flat


def result_config(config: DictConfig) -> dict[str, Any]:
    """Return the values that determine a run's result, ``{"data.keep": 0.1, ...}``, sorted."""
    flat = flatten(rename(OmegaConf.to_container(config, resolve=True), RENAMED))
    return {
        key: flat[key]
        for key in sorted(flat)
        if flat[key] != NEW_KEYS.get(key, ...)
        and not {key.split(".")[0], ".".join(key.split(".")[:2])} & WITHOUT_EFFECT
    }


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
    usual = compose((f"data={data}",), with_hydra=True).hydra.runtime.choices
    named = {group: choices[group] for group in CHOICES} | {
        group: choice
        for group, choice in choices.items()
        if group.startswith(NAMED_IF_CHANGED) and choice != usual[group]
    }
    plain = result_config(compose(tuple(f"{group}={choice}" for group, choice in named.items())))
    parts = [] if data == "imbalanced" and loss != "plain" else [data]
    parts += [] if loss == "plain" else [loss]
    parts += [f"{group}={named[group]}" for group in sorted(named.keys() - set(CHOICES))]
    for key in sorted((values.keys() | plain.keys()) - BUDGET - SEEDS):
        if values.get(key) != plain.get(key) and plain.get(key) != "???":  # a required value
            parts.append(f"{key}={values.get(key)}")
    return ", ".join(parts)
