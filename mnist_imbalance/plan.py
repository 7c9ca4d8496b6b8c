"""Which runs a study is made of, and which of them are finished."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Annotated, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field, PositiveInt, ValidationError

from mnist_imbalance.commandline import compose_with
from mnist_imbalance.errors import as_config_error
from mnist_imbalance.runs import Result, determining, hash_config
from mnist_imbalance.seeds import Seed
from mnist_imbalance.selection import best_weights

Seeds = Annotated[list[Seed], Field(min_length=1)]
SWEPT = "loss.minority_weight"
CHOSEN = "loss.weights"


class Study(BaseModel, strict=True, extra="forbid"):
    """The values of a choice in ``conf/study``.

    Attributes:
        experiments: Overlays in ``conf/experiment/`` that re-create the report.
        seeds: Of the runs of these.
        extensions: Overlays that go beyond the report.
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
    workers: PositiveInt | None


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study, finished or not.

    Attributes:
        experiment: The overlay that it belongs to.
        choices: The name chosen in each config group.
        overrides: What the training command line would be given, ``key=value``.
        values: All that determines the result, by dotted key. ``loss.weights`` is "???" as long
            as it waits to be chosen by the runs of the weight sweep.
    """

    experiment: str
    choices: Mapping[str, str]
    overrides: tuple[str, ...]
    values: Mapping[str, Any]

    @cached_property
    def config_hash(self) -> str:
        """What the run's record is known by."""
        return hash_config(self.values)

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
        return StudyKeys.model_validate(OmegaConf.to_container(config, resolve=True))
    except ValidationError as error:
        raise as_config_error(error) from error


def combinations(experiment: str) -> list[list[str]]:
    """List the overrides of every run of an overlay: the products of its sweep's values."""
    config = compose_with([f"experiment={experiment}"], with_hydra=True)
    params = config.hydra.sweeper.params or {}
    swept = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in params.items()])
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in swept
    ]
    return [list(chosen) for chosen in product(*choices)]


def plan(study: Study) -> list[PlannedRun]:
    """List all runs of a study, seed by seed.

    A run that two overlays share is listed once for each.
    """
    composed: dict[str, list[tuple[list[str], DictConfig]]] = {}
    for experiment in [*study.experiments, *study.extensions]:
        composed[experiment] = []
        for chosen in combinations(experiment):
            overrides = [f"experiment={experiment}", *chosen, *study.overrides]
            composed[experiment].append((overrides, compose_with(overrides, with_hydra=True)))

    runs = []
    for seed in dict.fromkeys([*study.seeds, *study.extension_seeds]):
        experiments = [
            *(study.experiments if seed in study.seeds else []),
            *(study.extensions if seed in study.extension_seeds else []),
        ]
        for experiment in experiments:
            for overrides, config in composed[experiment]:
                config.seed = seed
                task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
                runs.append(
                    PlannedRun(
                        experiment,
                        config.hydra.runtime.choices,
                        (*overrides, f"seed={seed}"),
                        determining(task),
                    )
                )
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

    def apart_from_weights(values: Mapping[str, Any]) -> dict[str, Any]:
        free = {SWEPT, CHOSEN, "loss._target_"}
        return {key: value for key, value in values.items() if key not in free}

    ours = apart_from_weights(run.values)
    sweep = [
        other
        for other in runs
        if SWEPT in other.values and apart_from_weights(other.values) == ours
    ]
    if not sweep or not all(other.config_hash in records for other in sweep):
        return run
    weights = best_weights({other.values[SWEPT]: records[other.config_hash].val for other in sweep})
    return replace(
        run,
        overrides=(*run.overrides, f"{CHOSEN}=[{','.join(map(str, weights))}]"),
        values={**run.values, CHOSEN: weights},
    )
