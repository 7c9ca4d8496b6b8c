"""Which runs a study is made of: overlays x methods x seeds, and what is chosen among them."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import product
from math import isnan, nan
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field

from mnist_imbalance.config import compose_with
from mnist_imbalance.data.seeds import Seed
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import (
    CHOICES,
    condition_of,
    determining,
    hash_config,
)

if TYPE_CHECKING:
    import pandas

SWEPT, CHOSEN = "loss.minority_weight", "loss.weights"
PARTS = (*CHOICES, "scheduler", "mix", "callbacks", "posthoc")  # groups, named as their part
NO_SEED = -1  # stands where a run's seed will
Seeds = Annotated[list[Seed], Field(min_length=1)]
Compose = Callable[..., "Composed"]


class Study(BaseModel, strict=True, extra="forbid"):
    """The values of a choice in ``conf/study``, which says what they mean."""

    experiments: list[str]
    seeds: Seeds
    extensions: list[str]
    extension_seeds: Seeds
    methods: dict[str, list[str]]
    tuned_at: list[str]
    tuning_seed: Seed | None
    weights: list[float | int]
    overrides: list[str]
    report_dir: str | None

    @property
    def tuned_with(self) -> int:
        """The seed with which methods are tuned."""
        return self.seeds[0] if self.tuning_seed is None else self.tuning_seed


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study, finished or not.

    Attributes:
        experiment: The overlay that it belongs to.
        overrides: Its training command line.
        config: All that determines its result, by dotted key; weights to be chosen are "???".
        choices: The name chosen in each config group.
        tuned: Where the best setting of a method is still to be chosen: the run with each setting,
            by the hash of the run whose validation score decides.
    """

    experiment: str
    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    choices: Mapping[str, str]
    tuned: Mapping[str, "PlannedRun"] = field(default_factory=dict)

    @cached_property
    def config_hash(self) -> str:
        """The key of the run's record."""
        return hash_config(self.config)

    @property
    def condition(self) -> str:
        """What was done about the imbalance."""
        return condition_of(self.config, self.choices)

    @property
    def waits(self) -> bool:
        """Whether weights or a setting are still to be chosen."""
        return bool(self.tuned) or self.config.get(CHOSEN) == "???"

    def with_seed(self, seed: int) -> "PlannedRun":
        """Return the run with a seed."""
        config = {
            key: seed if value == NO_SEED and key.endswith("seed") else value
            for key, value in self.config.items()
        }
        return replace(self, overrides=(*self.overrides, f"seed={seed}"), config=config)


def parse(overrides: Sequence[str]) -> list[Override]:
    """Return overrides as Hydra reads them."""
    return list(OverridesParser.create().parse_overrides(list(overrides)))


def values_by_key(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Return the values that overrides sweep, or the one that they set, by key."""
    return {
        override.key_or_group: list(override.sweep_string_iterator())
        if override.is_sweep_override()
        else [override.get_value_element_as_str()]
        for override in parse(overrides)
    }


class Composed(NamedTuple):
    """A composed config without a seed, and what Hydra's part of it says."""

    config: DictConfig
    choices: Mapping[str, str]
    params: Mapping[str, Any]  # of the sweeper


def composer() -> Callable[..., Composed]:
    """Return what composes a training config; it remembers, for Hydra takes a tenth of a second."""

    @cache
    def compose(*overrides: str) -> Composed:
        whole = compose_with([*overrides, f"seed={NO_SEED}"], with_hydra=True)
        config = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
        return Composed(config, whole.hydra.runtime.choices, whole.hydra.sweeper.params or {})

    return compose


def apply(base: Composed, overrides: Sequence[str], compose: Compose) -> Composed | None:
    """Return a config with more overrides, as Hydra would compose it but faster.

    None where only Hydra can: an overlay has changed a part that is chosen anew, or an override
    does more than set a value that is there.
    """
    config, choices = copy.deepcopy(base.config), dict(base.choices)
    chosen: dict[str, dict[str, str]] = {}  # by part of the config
    values = []
    for override in parse(overrides):
        key = override.key_or_group
        if key in PARTS or key.startswith("data/"):
            part = key.split("/")[0]
            groups = chosen.setdefault(part, {part: choices[part]})
            groups[key] = override.get_value_element_as_str()
        elif override.type != OverrideType.CHANGE or override.package or "." not in key:
            return None
        else:
            values.append(override)
    for part, groups in chosen.items():
        if config[part] != compose(f"{part}={choices[part]}").config[part]:
            return None
        other = compose(*(f"{key}={value}" for key, value in groups.items()))
        OmegaConf.update(config, part, other.config[part], merge=False)
        below = (key for key in other.choices if key.split("/")[0] == part)
        choices.update({key: other.choices[key] for key in below})
    for override in values:
        if OmegaConf.select(config, override.key_or_group, default=...) is ...:
            return None
        OmegaConf.update(config, override.key_or_group, override.value())
    return base._replace(config=config, choices=choices)


def swept_by(experiment: str, base: Composed, study: Study) -> dict[str, list[str]]:
    """Return the values that an overlay sweeps, by key."""
    file = f"conf/experiment/{experiment}.yaml"
    if "experiment" in base.config:
        raise ConfigError(f"{file}: its first line must be `# @package _global_`")
    for key, values in base.params.items():
        if OmegaConf.is_config(values):
            raise ConfigError(f"{file}: hydra.sweeper.params.{key}: write a,b instead of [a, b]")
    swept = values_by_key([f"{key}={values}" for key, values in base.params.items()])
    for key in (override.split("=")[0].lstrip("+~") for override in study.overrides):
        if key in {"seed", "runs_dir", "experiment"}:
            raise ConfigError(f"study.overrides: {key} is set by the study itself")
        if key in swept:
            raise ConfigError(f"study.overrides: {key} is swept by {file}")
    if study.methods and experiment in study.experiments:
        for override in study.tuned_at:
            key, _, value = override.partition("=")
            if key == "seed" or value not in swept.get(key, []):
                raise ConfigError(f"study.tuned_at: {override} is not among what {file} sweeps")
    return swept


def methods_of(study: Study, experiment: str) -> dict[str, dict[str, list[str]]]:
    """Return the values that each method of a study tries, by its name and by key."""
    if not study.methods or experiment not in study.experiments:
        return {"": {}}
    try:
        return {name: values_by_key(overrides) for name, overrides in study.methods.items()}
    except OverrideParseException as error:
        name = next(name for name, given in study.methods.items() if error.override in given)
        raise ConfigError(f"study.methods.{name}: {error.override} cannot be read") from error


def runs_of(experiment: str, study: Study, compose: Compose) -> Iterator[PlannedRun]:
    """Go through the runs of an overlay, seed by seed.

    A method of several settings has all of them with the tuning seed where it is tuned.
    Elsewhere, and with other seeds, it has one run, which waits for the best of them.
    """
    base = compose(f"experiment={experiment}")
    swept = swept_by(experiment, base, study)
    own_seeds = [int(seed) for seed in swept.pop("seed", [])]
    tuned_at = {(key, value) for key, _, value in (each.partition("=") for each in study.tuned_at)}
    runs: dict[tuple[str, frozenset[Any]], dict[tuple[str, ...], PlannedRun]] = {}
    for method, tried in methods_of(study, experiment).items():
        every = {**swept, **tried}
        for values in product(*every.values()):
            combined = list(zip(every, values, strict=True))
            overrides = [*(f"{key}={value}" for key, value in combined), *study.overrides]
            words = (f"experiment={experiment}", *overrides)
            config, choices, _ = apply(base, overrides, compose) or compose(*words)
            run = PlannedRun(experiment, words, determining(config), choices)
            place = frozenset(pair for pair in combined if pair[0] not in tried)
            setting = tuple(value for key, value in combined if key in tried)
            runs.setdefault((method, place), {})[setting] = run
    seeds = own_seeds or [
        *(study.seeds if experiment in study.experiments else []),
        *([study.tuned_with] if experiment in study.experiments and study.methods else []),
        *(study.extension_seeds if experiment in study.extensions else []),
    ]
    for seed, ((method, place), settings) in product(sorted(set(seeds)), runs.items()):
        seeded = [run.with_seed(seed) for run in settings.values()]
        tuned = frozenset(pair for pair in place if pair[0] not in dict(tuned_at)) | tuned_at
        tunes = len(settings) > 1 and place == tuned and seed == study.tuned_with
        if method and seed not in study.seeds and not tunes:
            continue
        if not method or len(settings) == 1 or tunes:
            yield from seeded
            continue
        deciding = (run.with_seed(study.tuned_with) for run in runs[method, tuned].values())
        by_hash = {run.config_hash: own for run, own in zip(deciding, seeded, strict=True)}
        unknown = {**seeded[0].config, "study.methods": [method, *by_hash]}
        yield replace(seeded[0], config=unknown, tuned=by_hash)


def plan(study: Study) -> list[PlannedRun]:
    """List all runs of a study, seed by seed; a run that two overlays share stands twice."""
    compose = composer()
    experiments = dict.fromkeys([*study.experiments, *study.extensions])
    runs = [run for experiment in experiments for run in runs_of(experiment, study, compose)]
    if not runs:
        raise ConfigError("study.experiments: nothing to do")
    names = [{run.choices[group] for run in runs} for group in ("data", "loss")]
    for name in set.intersection(*names):
        raise ConfigError(
            f"study.experiments, study.extensions: {name} is a choice of data and one of loss; the "
            "report could not tell their runs apart"
        )
    return sorted(runs, key=lambda run: run.config["seed"])


def without_weights(config: Mapping[str, Any]) -> str:
    """Return what a weighted run shares with the runs of other weights."""
    free = {SWEPT, CHOSEN, "loss._target_"}
    return json.dumps({key: config[key] for key in config if key not in free}, sort_keys=True)


def best_weights(sweep: Mapping[Any, Sequence[float]], minority: Sequence[int]) -> list[float]:
    """Return each minority label's weight of the highest accuracy, the first of equals; else 1."""
    best: list[float] = []
    for label, accuracies in enumerate(zip(*sweep.values(), strict=True)):
        if label in minority and any(map(isnan, accuracies)):
            raise ConfigError(f"{CHOSEN}: label {label} has no validation image to choose by")
        best.append([*sweep][accuracies.index(max(accuracies))] if label in minority else 1)
    return best


def with_choices(
    runs: Sequence[PlannedRun], records: "pandas.DataFrame", weights: Sequence[float]
) -> list[PlannedRun]:
    """Give the runs that wait the weights or the setting that are best on validation data."""
    found = records.set_index("config_hash")
    sweeps: dict[str, dict[float, str]] = {}
    for run in runs:
        if run.config.get(SWEPT) in weights:
            same = without_weights(run.config)
            sweeps.setdefault(same, {})[run.config[SWEPT]] = run.config_hash

    def accuracies(key: str) -> list[float]:
        rows = enumerate(found.val_confusion[key])
        return [row[label] / sum(row) if sum(row) else nan for label, row in rows]

    def chosen(run: PlannedRun) -> PlannedRun:
        if run.tuned:
            if found.index.isin(run.tuned).sum() != len(run.tuned):
                return run
            return run.tuned[max(run.tuned, key=lambda key: round(fmean(accuracies(key)), 6))]
        sweep = sweeps.get(without_weights(run.config), {})
        if not sweep or not all(key in found.index for key in sweep.values()):
            return run
        minority = next(iter(found.groups[next(iter(sweep.values()))].values()))
        best = best_weights(
            {weight: accuracies(sweep[weight]) for weight in sorted(sweep)}, minority
        )
        weigh = f"{CHOSEN}=[{','.join(map(str, best))}]"
        return replace(run, overrides=(*run.overrides, weigh), config={**run.config, CHOSEN: best})

    return [chosen(run) if run.waits else run for run in runs]


def at_grid_ends(runs: Sequence[PlannedRun], choices: Sequence[PlannedRun]) -> list[str]:
    """Return the chosen settings that are the first or the last of three or more.

    Args:
        runs: Before `with_choices`.
        choices: After it.
    """
    ends: dict[str, None] = {}  # an ordered set
    for run, choice in zip(runs, choices, strict=True):
        tried = [*run.tuned.values()]
        if len(tried) > 2 and any(choice is end for end in (tried[0], tried[-1])):
            shared = set.intersection(*(set(setting.overrides) for setting in tried))
            own = " ".join(override for override in choice.overrides if override not in shared)
            ends[f"{run.experiment}: {own}"] = None
    return [*ends]
