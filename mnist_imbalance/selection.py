"""Choosing loss weights by what a sweep of them reached."""

import math
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.published import published
from mnist_imbalance.scores import Scores

SWEPT = "loss.minority_weight"
CHOSEN = "loss.weights"


class Configured(Protocol):
    """A run that tells its config."""

    @property
    def config(self) -> Mapping[str, Any]:
        """All that determines its result, by dotted key."""


Run = TypeVar("Run", bound=Configured)
Entry = TypeVar("Entry")
Key = TypeVar("Key")


def without_weights(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what tells one weighted loss from another."""
    free = {SWEPT, CHOSEN, "loss._target_"}
    return {key: value for key, value in values.items() if key not in free}


def hashable(value: Any) -> Hashable:
    """Return a config's value as what is equal where it is and can be looked up by."""
    if isinstance(value, Mapping):
        return frozenset((key, hashable(each)) for key, each in value.items())
    return tuple(map(hashable, value)) if isinstance(value, list | tuple) else value


class Sweeps(Generic[Entry]):
    """Runs with one weight of AI3607's sweep, by all else that determines them.

    So that a run's own sweep is found without a look at every other run.
    """

    def __init__(self) -> None:
        self._weights = published()["uniform_weights"]  # AI3607's, however far other sweeps go
        self._runs: dict[Hashable, dict[float, Entry]] = {}

    def add(self, values: Mapping[str, Any], run: Entry) -> None:
        """Enter a run, if it has such a weight.

        Args:
            values: All that determines it, by dotted key.
            run: The run, or what it is known by.
        """
        if SWEPT in values and (weight := values[SWEPT]) in self._weights:
            self._runs.setdefault(hashable(without_weights(values)), {})[weight] = run

    def of(self, values: Mapping[str, Any]) -> dict[float, Entry]:
        """Return the runs that differ from one in their weights alone, by weight.

        Args:
            values: All that determines the one.
        """
        return self._runs.get(hashable(without_weights(values)), {})


def sweeps_of(runs: Iterable[Run]) -> Sweeps[Run]:
    """Return the sweeps that some runs are of."""
    sweeps = Sweeps[Run]()
    for run in runs:
        sweeps.add(run.config, run)
    return sweeps


def best_balanced(tuned: Mapping[Key, Scores]) -> Key:
    """Return the key of the highest mean of the labels' accuracies, the first of equals."""
    return max(tuned, key=lambda key: round(tuned[key].balanced_accuracy, 6))


def best_minority_weight(sweep: Mapping[float, Scores], rare: Collection[int]) -> float:
    """Return the weight with the highest mean accuracy of the rare labels (AI3607, section 5.2).

    Args:
        sweep: Scores by the weight of the rare labels; of equals, the smallest weight wins.
        rare: These labels.
    """
    return max(sorted(sweep), key=lambda weight: sweep[weight].accuracy_of(rare))


def best_weights(sweep: Mapping[float, Scores], rare: Collection[int]) -> list[float]:
    """Return the best weight of each rare label, and 1 of the others (AI3607, section 5.2).

    It is the weight at which the label is most accurate, the smallest of equals.

    Raises:
        ConfigError: A rare label has no images to choose by.
    """
    by_weight = {weight: sweep[weight].accuracy_per_label for weight in sorted(sweep)}
    best: list[float] = []
    for label, accuracies in enumerate(zip(*by_weight.values(), strict=True)):
        if label not in rare:
            best.append(1)
        elif any(map(math.isnan, accuracies)):
            raise ConfigError(f"loss.weights: label {label} has no validation image to choose by")
        else:
            best.append([*by_weight][accuracies.index(max(accuracies))])
    return best
