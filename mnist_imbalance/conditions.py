"""What a condition is called: as on the command line, and what runs of it have in common."""

from collections.abc import Mapping
from typing import Any

CHOICES = ("model", "data", "loss", "optimizer")  # config groups, by which runs are named
NAMED_IF_CHANGED = ("scheduler", "mix", "callbacks", "posthoc")  # and what lies below data
BUDGET = {"trainer.max_epochs", "trainer.max_steps"}  # how long is trained, not what is done
BUDGET |= {"data.sampler.epochs", "data.sampler.steps"}  # of the progressive sampler
SEEDS = {"seed", "data.seed", "data.order_seed"}


def changes(values: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, by dotted key, in which a run differs from a plain one of its choices.

    Args:
        values: All that determines the run.
        plain: All that determines a run of the same choices, nothing else being changed.
    """
    keys = sorted((values.keys() | plain.keys()) - BUDGET - SEEDS)
    return {
        key: values.get(key)
        for key in keys
        if values.get(key) != plain.get(key) and plain.get(key) != "???"  # had to be given
    }


def named_choices(chosen: Mapping[str, str], usual: Mapping[str, str]) -> dict[str, str]:
    """Return the choices by which a run is called, by config group.

    Args:
        chosen: The name chosen in each config group.
        usual: The same of a plain run of its data; what is below ``data`` and differs is named, and
            so are the groups of `NAMED_IF_CHANGED`.
    """
    changed = {
        group: choice
        for group, choice in chosen.items()
        if group.startswith((*NAMED_IF_CHANGED, "data/")) and choice != usual[group]
    }
    return {group: chosen[group] for group in CHOICES} | changed


def name_condition(choices: Mapping[str, str], changed: Mapping[str, Any]) -> str:
    """Return a condition's name: its data, its loss, and what else is not as these choices have it.

    ``imbalanced``, ``augmented_40``, ``per_label``, ``weighted, loss.minority_weight=3``,
    ``original, data/copies=noise_100``: the data stands there unless it is imbalanced and the loss
    says more, the loss unless it is plain.

    Args:
        choices: As `named_choices` gives them.
        changed: As `changes` gives it.
    """
    data, loss = choices["data"], choices["loss"]
    parts = [] if data == "imbalanced" and loss != "plain" else [data]
    parts += [] if loss == "plain" else [loss]
    parts += [f"{group}={choices[group]}" for group in sorted(choices.keys() - set(CHOICES))]
    return ", ".join([*parts, *(f"{key}={value}" for key, value in changed.items())])
