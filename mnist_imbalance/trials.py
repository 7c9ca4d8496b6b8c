"""Settings that Optuna asks for, tried batch by batch and kept."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, FiniteFloat
from sqlalchemy.exc import SQLAlchemyError

from mnist_imbalance.data.seeds import derive
from mnist_imbalance.errors import ConfigError, naming
from mnist_imbalance.jobs import Outcome

Space = dict[str, BaseDistribution]  # by key of the training config
Setting = Mapping[str, Any]  # a value for each of these keys


class Range(BaseModel, strict=True, extra="forbid"):
    """Numbers from low to high, both included; whole ones if all that is given is whole."""

    low: FiniteFloat
    high: FiniteFloat
    log: bool = False
    step: FiniteFloat = 1


def distribution(key: str, values: Any) -> BaseDistribution:
    """Return what the values of a key are drawn from: a list's, or those of a `Range`.

    Raises:
        ConfigError: It is neither, or there are none.
    """
    with naming(f"search.space.{key}"):
        if isinstance(values, list):
            if not all(isinstance(each, str | int | float | None) for each in values):
                raise ValueError('a choice must be one value; write a list as text, "[1,2]"')
            return CategoricalDistribution(values)
        if not isinstance(values, dict):
            raise ValueError(f"must be a list of choices or {{low: 1, high: 50}}, got {values!r}")
        Range.model_validate(values)
        whole = not any(isinstance(each, float) for each in values.values())
        return (IntDistribution if whole else FloatDistribution)(**values)


def ends(values: BaseDistribution) -> Sequence[Any]:
    """Return all choices, or the lowest and the highest number."""
    if isinstance(values, CategoricalDistribution):
        return values.choices
    assert isinstance(values, IntDistribution | FloatDistribution)
    return values.low, values.high


def as_overrides(setting: Setting) -> list[str]:
    """Return a setting as the training command line is given it; text stays as it is."""
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in setting.items()
    ]


def open_search(folder: Path, definition: Mapping[str, Any], batch: int) -> optuna.Study:
    """Return the search that a folder holds, or that is begun in it.

    Args:
        folder: Is there.
        definition: All that decides what the search finds.
        batch: How many settings are tried at once, from its beginning to its end.

    Raises:
        ConfigError: Another search is in the folder, or a damaged one.
    """
    file = folder / "trials.db"
    connect = partial(sqlite3.connect, file)  # no URL, which some paths would break
    try:
        search = optuna.create_study(
            storage=optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": connect}),
            study_name="search",
            direction="maximize",
            load_if_exists=True,
        )
    except SQLAlchemyError as error:
        raise ConfigError(
            f"runs_dir: {file} cannot be read ({error.args[0]}); delete it and start the search "
            "again: finished runs are not trained again"
        ) from error
    if "batch" not in search.user_attrs:
        search.set_user_attr("definition", definition)
        search.set_user_attr("batch", batch)
    ours, theirs = json.loads(json.dumps(definition)), search.user_attrs["definition"]
    keys = sorted(ours.keys() | theirs.keys())
    if differing := [key for key in keys if ours.get(key) != theirs.get(key)]:
        raise ConfigError(
            f"search.name: {folder} holds a search with other values of {', '.join(differing)}; "
            "choose another name"
        )
    return search


def ask_and_tell(
    search: optuna.Study,
    space: Space,
    seed: int,
    budget: int,
    train: Callable[[Sequence[Setting]], list[list[Outcome]]],
) -> Iterator[list[FrozenTrial]]:
    """Try settings until there are as many as the budget.

    A batch is asked for in memory, by a sampler that its place seeds, and kept once all of it is
    told: a search that was stopped asks again what it had asked.

    Args:
        search: See `open_search`.
        space: What settings are drawn from.
        seed: Of the search.
        budget: Number of trials.
        train: Returns how the runs of each setting ended.

    Yields:
        All trials, after each batch.
    """
    batch: int = search.user_attrs["batch"]
    while (tried := len(search.trials)) < budget:
        first = tried - tried % batch
        sampler = optuna.samplers.TPESampler(seed=derive("search", seed, first) % 2**32)
        now = optuna.create_study(sampler=sampler, direction="maximize")
        now.add_trials(search.trials[:first])
        asked = [now.ask(space) for _ in range(min(batch, budget - first))]
        for trial, outcomes in zip(asked, train([each.params for each in asked]), strict=True):
            trial.set_user_attr("outcomes", [{**each, "test": {}} for each in outcomes])
            reached = [each["val_balanced_accuracy"] for each in outcomes]
            known = [each for each in reached if each is not None]
            if len(known) == len(reached):
                now.tell(trial, fmean(known))
            else:
                now.tell(trial, state=TrialState.FAIL)
        search.add_trials(now.trials[tried:])
        yield search.trials
