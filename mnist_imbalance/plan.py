"""Which runs a study is made of, and which of them are finished."""

import copy
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field, ValidationError

from mnist_imbalance import config as configs
from mnist_imbalance.conditions import (
    BUDGET,
    CHOICES,
    NAMED_IF_CHANGED,
    SEEDS,
    changes,
    name_condition,
    named_choices,
)
from mnist_imbalance.config import compose_with, take_apart
from mnist_imbalance.data.seeds import Seed
from mnist_imbalance.errors import ConfigError, as_config_error
from mnist_imbalance.runs import WITHOUT_EFFECT, Result, determining, hash_config
from mnist_imbalance.selection import CHOSEN, Sweeps, best_balanced, best_weights, sweeps_of

Seeds = Annotated[list[Seed], Field(min_length=1)]
PACKAGE = "# @package _global_"  # an overlay's first line
GROUPS = {*CHOICES, *NAMED_IF_CHANGED}  # each fills the part of the config that has its name
NO_SEED = "seed=-1"  # so that what follows the seed differs from what an overlay sets
ANOTHER_SEED = -2  # so that it is told from what is -1, too


class Study(BaseModel, strict=True, extra="forbid"):
    """The values of a choice in ``conf/study``.

    Attributes:
        experiments: Overlays in ``conf/experiment/`` that re-create AI3607.
        seeds: Of the runs of these.
        extensions: Overlays that go beyond AI3607.
        extension_seeds: Of the runs of those.
        methods: What is compared in every run of the overlays in ``experiments``, by name:
            overrides of the training command line; what they sweep is tuned, see `with_settings`.
        tuned_at: Overrides of these overlays, where the methods are tuned.
        tuning_seed: With which they are tuned; None is the first of ``seeds``.
        overrides: Of every run.
        report_dir: Where the report is written; None is ``report`` below runs_dir where that holds
            runs, and else in the working directory.
    """

    experiments: list[str]
    seeds: Seeds
    extensions: list[str]
    extension_seeds: Seeds
    methods: dict[str, list[str]]
    tuned_at: list[str]
    tuning_seed: Seed | None
    overrides: list[str]
    report_dir: str | None

    @property
    def tuned_with(self) -> int:
        """The seed with which methods are tuned."""
        return self.seeds[0] if self.tuning_seed is None else self.tuning_seed


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
        settings: Where the best is still to be chosen: the run with each setting of its method, by
            the hash of the run that this setting was tuned by.
    """

    experiment: str
    choices: Mapping[str, str]
    changes: Mapping[str, Any]
    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    settings: Mapping[str, "PlannedRun"] = field(default_factory=dict)

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
        """Tell whether weights or a setting are still to be chosen."""
        return self.config.get(CHOSEN) == "???" or bool(self.settings)


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
        swept[key] = all_values(override)
    return swept


def all_values(override: Override) -> list[str]:
    """Return the values that an override sweeps, or the one that it sets."""
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    return [override.get_value_element_as_str()]


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
            if group[1] not in WITHOUT_EFFECT:
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
        given = [each for each in combined if each.partition("=")[0] not in GROUPS]
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
    if None in values or chosen.keys() - GROUPS:
        named = [f"{group}={choice}" for group, choice in chosen.items()]
        return determining(compose(*named, *study.overrides).config)
    return determining(put_together(compose(), chosen, filter(None, values), compose).config)


def methods_of(study: Study, experiment: str) -> dict[str, dict[str, list[str]]]:
    """Return the values that each method of a study tries, by its name and by key.

    Raises:
        ConfigError: An override of a method cannot be read.
    """
    if not study.methods or experiment not in study.experiments:
        return {"": {}}
    methods = {}
    for name, overrides in study.methods.items():
        try:
            parsed = OverridesParser.create().parse_overrides(overrides)
        except OverrideParseException as error:
            raise ConfigError(f"study.methods.{name}: {error.override} cannot be read") from error
        methods[name] = {each.key_or_group: all_values(each) for each in parsed}
    return methods


def check_tuned_at(study: Study, experiment: str, swept: Mapping[str, Sequence[str]]) -> None:
    """Refuse a place for tuning at which an overlay has no runs.

    Raises:
        ConfigError: There is one.
    """
    if study.methods and experiment in study.experiments:
        for override in study.tuned_at:
            key, _, value = override.partition("=")
            if value not in swept.get(key, []):
                raise ConfigError(
                    f"study.tuned_at: {override} is not among what "
                    f"conf/experiment/{experiment}.yaml sweeps"
                )


class Unseeded(NamedTuple):
    """A run whose seed is still to be set.

    Attributes:
        run: Without its seed in its config.
        follow: The keys of its config that are the seed.
        method: Its name; "" without methods.
        place: What its overlay sweeps of it.
        setting: What its method sweeps of it.
    """

    run: PlannedRun
    follow: Sequence[str]
    method: str
    place: frozenset[str]
    setting: tuple[str, ...]

    def seeded(self, seed: int) -> PlannedRun:
        """Return the run with a seed."""
        overrides = (*self.run.overrides, f"seed={seed}")
        config = {**self.run.config, **dict.fromkeys(self.follow, seed)}
        return replace(self.run, overrides=overrides, config=config)


def with_settings(study: Study, planned: Sequence[Unseeded], seed: int) -> Iterator[PlannedRun]:
    """Go through the runs of an overlay with a seed.

    A method of several settings has all of them with the tuning seed where it is tuned.
    Elsewhere, and with other seeds, it has one run, which waits for the best of them.
    """
    keys = {override.partition("=")[0] for override in study.tuned_at}
    known = {(each.method, each.place, each.setting): each for each in planned}
    at: dict[tuple[str, frozenset[str]], list[Unseeded]] = {}
    for each in planned:
        at.setdefault((each.method, each.place), []).append(each)
    for (method, place), settings in at.items():
        others = {each for each in place if each.partition("=")[0] not in keys}
        tuned = frozenset([*others, *study.tuned_at])
        tunes = place == tuned and seed == study.tuned_with and len(settings) > 1
        if method and seed not in study.seeds and not tunes:
            continue
        if not method or len(settings) == 1 or tunes:
            yield from (each.seeded(seed) for each in settings)
            continue
        tuned_by = {
            known[method, tuned, each.setting].seeded(study.tuned_with).config_hash: each.seeded(
                seed
            )
            for each in settings
        }
        first = next(iter(tuned_by.values()))
        unknown = {"study.methods": [method, *tuned_by]}
        yield replace(first, changes={}, config={**first.config, **unknown}, settings=tuned_by)


def plan(study: Study) -> list[PlannedRun]:
    """List all runs of a study, seed by seed.

    A run that two overlays share is listed once for each. An overlay that sweeps ``seed`` has those
    seeds, whatever the study's are.

    Raises:
        ConfigError: There is nothing to do, an overlay or override cannot work, or different
            runs would have one name.
    """
    found: dict[str, list[Unseeded]] = {}
    own_seeds: dict[str, list[int]] = {}

    plain: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}  # values by choices
    compose = cache(compose_once)
    for experiment in dict.fromkeys([*study.experiments, *study.extensions]):
        found[experiment] = []
        first, touched = compose_overlay(experiment, compose)
        swept = swept_values(experiment, first)
        own_seeds[experiment] = [int(seed) for seed in swept.pop("seed", [])]
        check_overrides(study.overrides, experiment, swept)
        check_tuned_at(study, experiment, swept)
        for method, tried in methods_of(study, experiment).items():
            every = {**swept, **tried}
            for combined, (config, choices, _) in compose_runs(
                study, experiment, first, touched, every, compose
            ):
                values = determining(config)
                chosen = named_choices(choices, compose(f"data={choices['data']}").choices)
                key = tuple(chosen.items())
                if key not in plain:
                    plain[key] = plain_values(study, chosen, compose)
                changed = changes(values, plain[key])
                overrides = (f"experiment={experiment}", *combined, *study.overrides)
                run = PlannedRun(experiment, chosen, changed, overrides, values)
                of_method = [each for each in combined if each.partition("=")[0] in tried]
                place = frozenset(combined) - frozenset(of_method)
                config.seed = ANOTHER_SEED
                follow = [key for key, value in determining(config).items() if value != values[key]]
                found[experiment].append(Unseeded(run, follow, method, place, tuple(of_method)))

    every_seed = {
        study.tuned_with,
        *study.seeds,
        *study.extension_seeds,
        *chain.from_iterable(own_seeds.values()),
    }
    runs: list[PlannedRun] = []
    for seed in sorted(every_seed):
        for experiment, planned in found.items():
            seeds = [
                *(study.seeds if experiment in study.experiments else []),
                *([study.tuned_with] if experiment in study.experiments and study.methods else []),
                *(study.extension_seeds if experiment in study.extensions else []),
            ]
            if seed in (own_seeds[experiment] or seeds):
                runs.extend(with_settings(study, planned, seed))
    if not runs:
        raise ConfigError("study.experiments: nothing to do")
    check_names(run for run in runs if not run.settings)
    return runs


def with_choices(runs: Collection[PlannedRun], records: Mapping[str, Result]) -> list[PlannedRun]:
    """Give all runs of a study that wait what they wait for, where it is known, see `with_choice`.

    Args:
        runs: All of the study.
        records: Finished runs by config hash.
    """
    sweeps = sweeps_of(runs)
    return [with_choice(run, sweeps, records) if run.waits else run for run in runs]


def with_choice(
    run: PlannedRun, sweeps: Sweeps[PlannedRun], records: Mapping[str, Result]
) -> PlannedRun:
    """Give a run that waits the weights or the setting that are best on validation data.

    Weights are those of its model's and seed's sweep, a setting that of its method and model.

    Args:
        run: One that `PlannedRun.waits`.
        sweeps: Of the study.
        records: Finished runs by config hash.

    Returns:
        The run with them; the run itself if what it waits for is not complete.
    """
    if run.settings:
        tuned = {key: records[key].val for key in run.settings if key in records}
        return run.settings[best_balanced(tuned)] if len(tuned) == len(run.settings) else run
    sweep = sweeps.of(run.config)
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
