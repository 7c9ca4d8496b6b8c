"""Which runs a study is made of, and which of them are finished."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field, ValidationError

from mnist_imbalance.commandline import compose_with
from mnist_imbalance.conditions import BUDGET, SEEDS, changes, name_condition
from mnist_imbalance.errors import ConfigError, as_config_error
from mnist_imbalance.published import published
from mnist_imbalance.runs import CHOICES, Result, determining, hash_config
from mnist_imbalance.seeds import Seed
from mnist_imbalance.selection import best_weights

Seeds = Annotated[list[Seed], Field(min_length=1)]
SWEPT = "loss.minority_weight"
CHOSEN = "loss.weights"
NO_SEED = "seed=-1"  # so that what follows the seed differs from what an overlay sets


class Study(BaseModel, strict=True, extra="forbid"):
    """The values of a choice in ``conf/study``.

    Attributes:
        experiments: Overlays in ``conf/experiment/`` that re-create AI3607.
        seeds: Of the runs of these.
        extensions: Overlays that go beyond AI3607.
        extension_seeds: Of the runs of those.
        overrides: Of every run.
        report_dir: Where the report is written.
    """

    experiments: list[str]
    seeds: Seeds
    extensions: list[str]
    extension_seeds: Seeds
    overrides: list[str]
    report_dir: str


class StudyKeys(BaseModel, strict=True, extra="forbid"):
    """The values of ``conf/study.yaml``."""

    study: Study
    runs_dir: str
    records_dirs: list[str]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study, finished or not.

    Attributes:
        experiment: The overlay that it belongs to.
        choices: The name chosen in each config group.
        changes: What the overlay changes of these choices, see `changes`.
        overrides: What the training command line would be given, ``key=value``.
        values: All that determines the result, by dotted key. ``loss.weights`` is "???" as long
            as it waits to be chosen by the runs of the weight sweep.
    """

    experiment: str
    choices: Mapping[str, str]
    changes: Mapping[str, Any]
    overrides: tuple[str, ...]
    values: Mapping[str, Any]

    @cached_property
    def config_hash(self) -> str:
        """What the run's record is known by."""
        return hash_config(self.values)

    @property
    def condition(self) -> str:
        """What was done about the imbalance, see `name_condition`."""
        return name_condition({group: self.choices[group] for group in CHOICES}, self.changes)

    @property
    def waits(self) -> bool:
        """Tell whether weights are still to be chosen."""
        return self.values.get(CHOSEN) == "???"


def read_study(overrides: Sequence[str]) -> StudyKeys:
    """Compose and check ``conf/study.yaml``.

    Raises:
        ConfigError: A value cannot work.
    """
    config = compose_with(overrides, name="study")
    try:
        keys = StudyKeys.model_validate(OmegaConf.to_container(config, resolve=True))
    except ValidationError as error:
        raise as_config_error(error) from error
    for folder in keys.records_dirs:
        if not Path(folder).is_dir():
            raise ConfigError(f"records_dirs: there is no folder {folder}")
    return keys


def swept_values(experiment: str) -> dict[str, list[str]]:
    """Read which values an overlay sweeps, by key.

    Raises:
        ConfigError: The overlay is not what it must be.
    """
    config = compose_with([f"experiment={experiment}"], with_hydra=True)
    file = f"conf/experiment/{experiment}.yaml"
    if "experiment" in config:
        raise ConfigError(f"{file}: its first line must be `# @package _global_`")
    params = config.hydra.sweeper.params or {}
    swept = {}
    for key, values in params.items():
        if OmegaConf.is_config(values):
            raise ConfigError(f"{file}: hydra.sweeper.params.{key}: write a,b instead of [a, b]")
        [override] = OverridesParser.create().parse_overrides([f"{key}={values}"])
        if override.is_sweep_override():
            swept[key] = list(override.sweep_string_iterator())
        else:
            swept[key] = [override.get_value_element_as_str()]
    return swept


def check_overrides(overrides: Sequence[str], experiment: str, swept: Iterable[str]) -> None:
    """Refuse overrides of a study that it would override itself.

    Raises:
        ConfigError: An override's key is the study's or the overlay's own.
    """
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key in {"seed", "runs_dir", "experiment"}:
            raise ConfigError(f"study.overrides: {key} is set by the study itself")
        if key in swept:
            raise ConfigError(
                f"study.overrides: {key} is swept by conf/experiment/{experiment}.yaml"
            )


def without_weights(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what tells one weighted loss from another."""
    free = {SWEPT, CHOSEN, "loss._target_"}
    return {key: value for key, value in values.items() if key not in free}


def check_names(runs: Iterable[PlannedRun]) -> None:
    """Refuse different runs that the report could not tell apart.

    Raises:
        ConfigError: Two runs share model, optimizer, condition, seeds and length.
    """
    known: dict[tuple[Any, ...], PlannedRun] = {}
    told_apart = (*sorted(SEEDS), *sorted(BUDGET))
    for run in runs:
        model, optimizer = run.choices["model"], run.choices["optimizer"]
        same = (model, optimizer, run.condition, *(run.values.get(key) for key in told_apart))
        first = known.setdefault(same, run)
        if first.config_hash != run.config_hash:
            overlays = " and ".join(dict.fromkeys([first.experiment, run.experiment]))
            raise ConfigError(
                f"study.experiments, study.extensions: {overlays}: different runs would have one "
                f"name in the report, {run.condition!r} ({model}, {optimizer})"
            )


def plan(study: Study) -> list[PlannedRun]:
    """List all runs of a study, seed by seed.

    A run that two overlays share is listed once for each. An overlay that sweeps ``seed`` has those
    seeds, whatever the study's are.

    Raises:
        ConfigError: There is nothing to do, an overlay or override cannot work, or different
            runs would have one name.
    """
    found: dict[str, list[tuple[PlannedRun, DictConfig]]] = {}
    own_seeds: dict[str, list[int]] = {}
    plain: dict[tuple[str, ...], dict[str, Any]] = {}  # values by choices
    for experiment in dict.fromkeys([*study.experiments, *study.extensions]):
        found[experiment] = []
        swept = swept_values(experiment)
        own_seeds[experiment] = [int(seed) for seed in swept.pop("seed", [])]
        check_overrides(study.overrides, experiment, swept)
        for combined in product(*([f"{key}={value}" for value in swept[key]] for key in swept)):
            overrides = (f"experiment={experiment}", *combined, *study.overrides)
            config = compose_with([*overrides, NO_SEED], with_hydra=True)
            choices = dict(config.hydra.runtime.choices)
            config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            values = determining(config)
            chosen = tuple(f"{group}={choices[group]}" for group in CHOICES)
            if chosen not in plain:
                plain[chosen] = determining(compose_with([*chosen, *study.overrides, NO_SEED]))
            changed = changes(values, plain[chosen])
            run = PlannedRun(experiment, choices, changed, overrides, values)
            found[experiment].append((run, config))

    every_seed = {*study.seeds, *study.extension_seeds, *chain.from_iterable(own_seeds.values())}
    runs = []
    for seed in sorted(every_seed):
        for experiment, of_experiment in found.items():
            seeds = [
                *(study.seeds if experiment in study.experiments else []),
                *(study.extension_seeds if experiment in study.extensions else []),
            ]
            if seed in (own_seeds[experiment] or seeds):
                for run, config in of_experiment:
                    config.seed = seed
                    overrides = (*run.overrides, f"seed={seed}")
                    runs.append(replace(run, overrides=overrides, values=determining(config)))
    if not runs:
        raise ConfigError("study.experiments: nothing to do")
    check_names(runs)
    return runs


def with_chosen_weights(
    run: PlannedRun, runs: Iterable[PlannedRun], records: Mapping[str, Result]
) -> PlannedRun:
    """Give a run that waits the weights that its model's and seed's sweep finds on validation data.

    Args:
        run: One that `PlannedRun.waits`.
        runs: All of the study.
        records: Finished runs by config hash.

    Returns:
        The run with weights; the run itself if its sweep is not complete.
    """
    ours = without_weights(run.values)
    weights = published()["uniform_weights"]  # AI3607's, however far the study's sweeps go
    sweep = [
        other
        for other in runs
        if other.values.get(SWEPT) in weights and without_weights(other.values) == ours
    ]
    if not sweep or not all(other.config_hash in records for other in sweep):
        return run
    best = best_weights({other.values[SWEPT]: records[other.config_hash].val for other in sweep})
    return replace(
        run,
        overrides=(*run.overrides, f"{CHOSEN}=[{','.join(map(str, best))}]"),
        values={**run.values, CHOSEN: best},
    )
