"""Which runs a study is made of, and which of them are finished."""

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field, ValidationError

from mnist_imbalance import config as configs
from mnist_imbalance.conditions import (
    BUDGET,
    CHOICES,
    SEEDS,
    changes,
    name_condition,
    named_choices,
)
from mnist_imbalance.config import compose_with, take_apart
from mnist_imbalance.errors import ConfigError, as_config_error
from mnist_imbalance.runs import Result, determining, hash_config
from mnist_imbalance.seeds import Seed
from mnist_imbalance.selection import CHOSEN, best_weights, sweep_of

Seeds = Annotated[list[Seed], Field(min_length=1)]
PACKAGE = "# @package _global_"  # an overlay's first line
NO_SEED = "seed=-1"  # so that what follows the seed differs from what an overlay sets


class Study(BaseModel, strict=True, extra="forbid"):
    """The values of a choice in ``conf/study``.

    Attributes:
        experiments: Overlays in ``conf/experiment/`` that re-create AI3607.
        seeds: Of the runs of these.
        extensions: Overlays that go beyond AI3607.
        extension_seeds: Of the runs of those.
        overrides: Of every run.
        report_dir: Where the report is written; None is ``report`` below runs_dir where that holds
            runs, and else in the working directory.
    """

    experiments: list[str]
    seeds: Seeds
    extensions: list[str]
    extension_seeds: Seeds
    overrides: list[str]
    report_dir: str | None


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
        choices: The name chosen in each config group that names its condition.
        changes: What the overlay changes of these choices, see `changes`.
        overrides: What the training command line would be given, ``key=value``.
        config: All that determines the result, by dotted key, as its record will call it.
            ``loss.weights`` is "???" as long as it waits to be chosen by the weight sweep.
    """

    experiment: str
    choices: Mapping[str, str]
    changes: Mapping[str, Any]
    overrides: tuple[str, ...]
    config: Mapping[str, Any]

    @cached_property
    def config_hash(self) -> str:
        """What the run's record is known by."""
        return hash_config(self.config)

    @property
    def condition(self) -> str:
        """What was done about the imbalance, see `name_condition`."""
        return name_condition(self.choices, self.changes)

    @property
    def waits(self) -> bool:
        """Tell whether weights are still to be chosen."""
        return self.config.get(CHOSEN) == "???"


def read_study(overrides: Sequence[str]) -> StudyKeys:
    """Compose and check ``conf/study.yaml``.

    Raises:
        ConfigError: A value cannot work.
    """
    config, _ = take_apart(compose_with(overrides, name="study", with_hydra=True))
    return check_study(config)


def check_study(config: DictConfig) -> StudyKeys:
    """Check what was composed from ``conf/study.yaml``.

    Raises:
        ConfigError: A value cannot work.
    """
    try:
        keys = StudyKeys.model_validate(OmegaConf.to_container(config, resolve=True))
    except ValidationError as error:
        raise as_config_error(error) from error
    for folder in keys.records_dirs:
        if not Path(folder).is_dir():
            raise ConfigError(f"records_dirs: there is no folder {folder}; [] for none")
    return keys


def swept_values(experiment: str, composed: "Composed") -> dict[str, list[str]]:
    """Return which values an overlay sweeps, by key.

    Args:
        experiment: The overlay.
        composed: With it.

    Raises:
        ConfigError: The overlay is not what it must be.
    """
    file = f"conf/experiment/{experiment}.yaml"
    if "experiment" in composed.config:
        raise ConfigError(f"{file}: its first line must be `{PACKAGE}`")
    swept = {}
    for key, values in composed.params.items():
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


def check_names(runs: Iterable[PlannedRun]) -> None:
    """Refuse different runs that the report could not tell apart.

    Raises:
        ConfigError: Two runs share model, optimizer, condition, seeds and length.
    """
    known: dict[tuple[Any, ...], PlannedRun] = {}
    told_apart = (*sorted(SEEDS), *sorted(BUDGET))
    for run in runs:
        model, optimizer = run.choices["model"], run.choices["optimizer"]
        same = (model, optimizer, run.condition, *(run.config.get(key) for key in told_apart))
        first = known.setdefault(same, run)
        if first.config_hash != run.config_hash:
            overlays = " and ".join(dict.fromkeys([first.experiment, run.experiment]))
            raise ConfigError(
                f"study.experiments, study.extensions: {overlays}: different runs would have one "
                f"name in the report, {run.condition!r} ({model}, {optimizer})"
            )


def read_value(override: str) -> tuple[str, Any] | None:
    """Return the key and the value that an override sets; None if it does anything else.

    Such are a choice of a group, ``+key=value``, ``~key`` and keys at the top, ``threads=2``.
    """
    [parsed] = OverridesParser.create().parse_overrides([override])
    key = parsed.key_or_group
    sets = parsed.type == OverrideType.CHANGE and not parsed.is_sweep_override()
    sets = sets and "." in key and parsed.package is None
    return (key, parsed.value()) if sets else None


class Overlay(NamedTuple):
    """What the file of an overlay sets, if it does no more than that.

    Attributes:
        choices: By config group.
        values: By dotted key.
        params: What ``hydra.sweeper.params`` holds.
    """

    choices: Mapping[str, str]
    values: Mapping[str, Any]
    params: Mapping[str, Any]


def leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= leaves(value, f"{name}.") if value and isinstance(value, dict) else {name: value}
    return flat


def read_overlay(experiment: str) -> Overlay | None:
    """Return what an overlay's file sets; None if it does more than that."""
    path = configs.CONF / "experiment" / f"{experiment}.yaml"
    file = OmegaConf.load(path) if path.is_file() else None
    if not isinstance(file, DictConfig) or not path.read_text("utf-8").startswith(PACKAGE):
        return None
    choices = {}
    for entry in file.pop("defaults", []):
        for key in entry if OmegaConf.is_config(entry) else [""]:
            group = re.fullmatch(r"override /?(\w+)", str(key))
            if not group:  # it builds on another overlay, or overrides a group below another
                return None
            choices[group[1]] = entry[key]
    hydra = file.pop("hydra", OmegaConf.create({"sweeper": {"params": {}}}))
    if [*hydra] != ["sweeper"] or [*hydra.sweeper] != ["params"]:
        return None
    values: Any = OmegaConf.to_container(file)
    return Overlay(choices, leaves(values), hydra.sweeper.params)


class Composed(NamedTuple):
    """A config without a seed, and what Hydra's part of it says.

    Attributes:
        config: Without Hydra's part.
        choices: The name chosen in each config group.
        params: What ``hydra.sweeper.params`` holds.
    """

    config: DictConfig
    choices: Mapping[str, str]
    params: Mapping[str, Any]


def compose_once(*overrides: str) -> Composed:
    """Compose a run's config, whose seed is set later."""
    config = compose_with([*overrides, NO_SEED], with_hydra=True)
    return Composed(
        OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]),
        dict(config.hydra.runtime.choices),
        config.hydra.sweeper.params or {},
    )


def put_together(
    first: Composed,
    choices: Mapping[str, str],
    values: Iterable[tuple[str, Any]],
    compose: Callable[..., Composed],
) -> Composed:
    """Return a config with other choices and values, as Hydra would compose it, but faster.

    Args:
        first: The config to change.
        choices: By config group; each fills the part of the config that has the group's name.
        values: To set, by dotted key.
        compose: `compose_once`, with a memory.
    """
    config = copy.deepcopy(first.config)
    below: dict[str, str] = {}  # the choices of the groups below a group that is changed
    for group, choice in choices.items():
        if choice != first.choices[group]:
            part = compose(f"{group}={choice}")
            OmegaConf.update(config, group, part.config[group], merge=False)
            below |= {key: part.choices[key] for key in part.choices if key.startswith(f"{group}/")}
    for key, value in values:
        OmegaConf.update(config, key, value)
    return first._replace(config=config, choices={**first.choices, **choices, **below})


def compose_overlay(
    experiment: str, compose: Callable[..., Composed]
) -> tuple[Composed, set[str] | None]:
    """Return the config with an overlay, and which parts it changes; None if it does more.

    It is put together where the overlay's file only sets what there is.
    """
    overlay = read_overlay(experiment)
    touched = {key.partition(".")[0] for key in overlay.values} if overlay else None
    if overlay:
        first = put_together(compose(), overlay.choices, [], compose)
        known: Any = OmegaConf.to_container(first.config)
        if not overlay.values.keys() - leaves(known).keys():
            for key, value in overlay.values.items():
                OmegaConf.update(first.config, key, value)
            return first._replace(params=overlay.params), touched
    return compose(f"experiment={experiment}"), touched


def compose_runs(
    study: Study,
    experiment: str,
    first: Composed,
    touched: set[str] | None,
    swept: Mapping[str, list[str]],
    compose: Callable[..., Composed],
) -> Iterator[tuple[tuple[str, ...], Composed]]:
    """Go through the runs of an overlay: what is swept, and the config.

    Hydra takes 0.1 seconds for a config. So they are put together from few, unless the overlay
    changes a part itself of which it sweeps the choice, or an override does more than set a value.
    """
    for combined in product(*([f"{key}={value}" for value in swept[key]] for key in swept)):
        given = [each for each in combined if each.partition("=")[0] not in CHOICES]
        groups = dict(each.split("=", 1) for each in combined if each not in given)
        values = [read_value(override) for override in (*given, *study.overrides)]
        known = [value for value in values if value]
        if touched is None or touched & groups.keys() or len(known) < len(values):
            yield combined, compose(f"experiment={experiment}", *combined, *study.overrides)
        else:
            yield combined, put_together(first, groups, known, compose)


def plain_values(
    study: Study, chosen: Mapping[str, str], compose: Callable[..., Composed]
) -> dict[str, Any]:
    """Return what determines a run of some choices of which nothing else is changed."""
    values = [read_value(override) for override in study.overrides]
    if None in values or chosen.keys() - set(CHOICES):
        named = [f"{group}={choice}" for group, choice in chosen.items()]
        return determining(compose(*named, *study.overrides).config)
    return determining(put_together(compose(), chosen, filter(None, values), compose).config)


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

    plain: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}  # values by choices
    compose = cache(compose_once)
    for experiment in dict.fromkeys([*study.experiments, *study.extensions]):
        found[experiment] = []
        first, touched = compose_overlay(experiment, compose)
        swept = swept_values(experiment, first)
        own_seeds[experiment] = [int(seed) for seed in swept.pop("seed", [])]
        check_overrides(study.overrides, experiment, swept)
        composed = compose_runs(study, experiment, first, touched, swept, compose)
        for combined, (config, choices, _) in composed:
            values = determining(config)
            chosen = named_choices(choices, compose(f"data={choices['data']}").choices)
            key = tuple(chosen.items())
            if key not in plain:
                plain[key] = plain_values(study, chosen, compose)
            changed = changes(values, plain[key])
            overrides = (f"experiment={experiment}", *combined, *study.overrides)
            run = PlannedRun(experiment, chosen, changed, overrides, values)
            found[experiment].append((run, config))

    every_seed = {*study.seeds, *study.extension_seeds, *chain.from_iterable(own_seeds.values())}
    runs = []
    for seed in sorted(every_seed):
        for experiment, planned in found.items():
            seeds = [
                *(study.seeds if experiment in study.experiments else []),
                *(study.extension_seeds if experiment in study.extensions else []),
            ]
            if seed in (own_seeds[experiment] or seeds):
                for run, config in planned:
                    config.seed = seed
                    overrides = (*run.overrides, f"seed={seed}")
                    runs.append(replace(run, overrides=overrides, config=determining(config)))
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
    sweep = sweep_of(run.config, runs)
    found = {weight: records.get(other.config_hash) for weight, other in sweep.items()}
    scored = {weight: result.val for weight, result in found.items() if result}
    if not sweep or len(scored) < len(sweep):
        return run
    rare = next(iter(next(filter(None, found.values())).groups.values()))
    best = best_weights(scored, rare)
    return replace(
        run,
        overrides=(*run.overrides, f"{CHOSEN}=[{','.join(map(str, best))}]"),
        config={**run.config, CHOSEN: best},
    )
