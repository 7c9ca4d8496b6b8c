"""Which runs a study is made of: overlays x methods x seeds, and what is chosen among them."""

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field, ValidationError

from mnist_imbalance.config import compose_with
from mnist_imbalance.data.seeds import Seed
from mnist_imbalance.errors import ConfigError, as_config_error
from mnist_imbalance.records.identity import hash_config, result_config

if TYPE_CHECKING:
    import pandas

SWEPT, CHOSEN = "loss.minority_weight", "loss.weights"
NO_SEED = -1  # stands where a run's seed will
Case = frozenset[str]  # what an overlay sweeps: {"model=cnn", "data.keep=0.1"}
Seeds = Annotated[list[Seed], Field(min_length=1)]


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
    baseline: str | None
    report_dir: str | None


class StudyConfig(BaseModel, strict=True, extra="forbid"):
    """The values of ``conf/study.yaml``."""

    study: Study
    runs_dir: Annotated[str, Field(min_length=1)]
    records_dirs: list[str]
    dry_run: bool


def check_study(config: DictConfig) -> StudyConfig:
    """Check the values of a study and its folders."""
    try:
        checked = StudyConfig.model_validate(OmegaConf.to_container(config, resolve=True))
    except ValidationError as error:
        raise as_config_error(error) from error
    for folder in checked.records_dirs:
        if not Path(folder).is_dir():
            raise ConfigError(f"records_dirs: there is no folder {folder}; [] for none")
    report_dir = checked.study.report_dir or checked.runs_dir
    for key, folder in (("runs_dir", checked.runs_dir), ("study.report_dir", report_dir)):
        path = Path(folder).absolute()
        there = next(place for place in (path, *path.parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ConfigError(f"{key}: {there} is no folder that can be written to")
    return checked


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study, finished or not."""

    experiment: str  # the overlay that it belongs to
    overrides: tuple[str, ...]  # its training command line
    config: Mapping[str, Any]  # all that determines its result; weights to be chosen are "???"
    choices: Mapping[str, str]  # the name chosen in each config group
    # while a setting is to be chosen: the run with each, by the hash of the run that decides
    tuned: Mapping[str, "PlannedRun"] = field(default_factory=dict)

    @cached_property
    def config_hash(self) -> str:
        """The key of the run's record."""
        return hash_config(self.config)

    @property
    def waits(self) -> bool:
        """Whether weights or a setting are still to be chosen."""
        return bool(self.tuned) or self.config.get(CHOSEN) == "???"

    def with_seed(self, seed: int) -> "PlannedRun":
        """Return the run with a seed."""
        keys = [key for key in self.config if key.endswith("seed") and self.config[key] == NO_SEED]
        config = {**self.config, **dict.fromkeys(keys, seed)}
        return replace(self, overrides=(*self.overrides, f"seed={seed}"), config=config)


def parse(overrides: Sequence[str]) -> list[Override]:
    """Return overrides as Hydra reads them."""
    return list(OverridesParser.create().parse_overrides(list(overrides)))


def by_key(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Return overrides without sweeps, by key: ``+a=1,2`` is ``{"a": ["+a=1", "+a=2"]}``."""
    found = {}
    for own in parse(overrides):
        key, several = own.get_key_element(), own.is_sweep_override()
        values = own.sweep_string_iterator() if several else [own.get_value_element_as_str()]
        words = [key] if own.is_delete() else [f"{key}={value}" for value in values]
        found[own.key_or_group] = words
    return found


@cache  # Hydra takes a tenth of a second
def compose(*overrides: str) -> tuple[DictConfig, DictConfig]:
    """Return a training config without a seed, and Hydra's part of it."""
    whole = compose_with([*overrides, f"seed={NO_SEED}"], with_hydra=True)
    return OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"]), whole.hydra


def plan_run(experiment: str, overrides: Sequence[str]) -> PlannedRun:
    """Compose a run without a seed as Hydra would: its choices first, then other values."""
    words = (f"experiment={experiment}", *overrides)
    usual = compose(words[0])[1].runtime.choices
    chosen, values = [words[0]], []
    for word, override in zip(overrides, parse(overrides), strict=True):
        if override.type == OverrideType.CHANGE and "." in override.key_or_group:
            values.append(override)
        elif usual.get(override.key_or_group, ...) != override.value():  # to save time
            chosen.append(word)
    base, hydra = compose(*chosen)
    config = copy.deepcopy(base)
    for override in values:
        OmegaConf.update(config, override.key_or_group, override.value())
    return PlannedRun(experiment, words, result_config(config), hydra.runtime.choices)


def settings_by_case(
    experiment: str, study: Study, methods: dict[str, list[str]], swept: dict[str, list[str]]
) -> dict[tuple[str, Case], list[PlannedRun]]:
    """Return the runs of an overlay without a seed: of each method in each case, every setting."""
    settings: dict[tuple[str, Case], list[PlannedRun]] = {}
    for method, overrides in (methods or {"": []}).items():
        tried = by_key(overrides)
        for words in product(*(swept | tried).values()):
            case = frozenset(words).difference(*tried.values())
            run = plan_run(experiment, [*words, *study.overrides])
            settings.setdefault((method, case), []).append(run)
    return settings


def runs_of(experiment: str, study: Study) -> Iterator[PlannedRun]:
    """Yield the runs of an overlay, seed by seed.

    A method of several settings has all of them with the tuning seed where it is tuned.
    Elsewhere, and with other seeds, it has one run, which waits for the best of them.
    """
    is_main = experiment in study.experiments
    params = compose(f"experiment={experiment}")[1].sweeper.params or {}
    swept = by_key([f"{key}={values}" for key, values in params.items()])
    for key in by_key(study.overrides):
        if key in swept.keys() | {"seed", "runs_dir", "experiment"}:
            raise ConfigError(f"study.overrides: {key} is set by the study or {experiment} itself")
    own = [int(word.partition("=")[2]) for word in swept.pop("seed", [])]
    tuning_seed = study.seeds[0] if study.tuning_seed is None else study.tuning_seed
    seeds = {
        *(own or (study.seeds if is_main else [])),
        *([tuning_seed] if is_main and study.methods else []),
        *(study.extension_seeds if experiment in study.extensions and not own else []),
    }
    tuned_at = by_key(study.tuned_at)
    others = [swept.get(key, []) for key in tuned_at]
    runs = settings_by_case(experiment, study, study.methods if is_main else {}, swept)
    for seed, ((method, case), settings) in product(sorted(seeds), runs.items()):
        seeded = [run.with_seed(seed) for run in settings]
        tuned = case.difference(*others).union(*tuned_at.values())  # the case where it is tuned
        compared = seed in study.seeds  # another seed only tunes
        whole = compared if len(settings) == 1 else (case, seed) == (tuned, tuning_seed)
        if not method or whole:  # all runs of an overlay, or of a method where it is tuned
            yield from seeded
        elif compared and (method, tuned) not in runs:
            raise ConfigError(f"study.tuned_at: {experiment} does not sweep {study.tuned_at}")
        elif compared:  # one run, which waits for the best setting
            deciding = (run.with_seed(tuning_seed) for run in runs[method, tuned])
            by_hash = {run.config_hash: own for run, own in zip(deciding, seeded, strict=True)}
            unknown = {**seeded[0].config, "study.methods": [method, *by_hash]}
            yield replace(seeded[0], config=unknown, tuned=by_hash)


def plan(study: Study) -> list[PlannedRun]:
    """List all runs of a study, seed by seed; a run that two overlays share stands twice."""
    experiments = dict.fromkeys([*study.experiments, *study.extensions])
    runs = [run for experiment in experiments for run in runs_of(experiment, study)]
    if not runs:
        raise ConfigError("study.experiments: nothing to do")
    if both := {run.choices["data"] for run in runs} & {run.choices["loss"] for run in runs}:
        raise ConfigError(f"study: {min(both)} names data and a loss; no report tells them apart")
    # those that take over another run's training come after all others
    return sorted(runs, key=lambda run: ("posthoc._target_" in run.config, run.config["seed"]))


def without_weights(config: Mapping[str, Any]) -> str:
    """Return what a weighted run shares with the runs of other weights."""
    free = {SWEPT, CHOSEN, "loss._target_"}
    return json.dumps({key: config[key] for key in config if key not in free}, sort_keys=True)


def with_choices(
    runs: Sequence[PlannedRun], records: "pandas.DataFrame", weights: Sequence[float]
) -> list[PlannedRun]:
    """Give the runs that wait the weights or the setting that are best on validation data.

    Each minority label has the weight with its highest accuracy, the first of equals.
    """
    from mnist_imbalance.records.table import accuracies  # slow to import

    found = records.set_index("config_hash")
    reached = accuracies(found, "val")
    reached = reached[[name for name in reached if name.isdigit()]]  # labels, not groups
    sweeps: dict[str, dict[float, str]] = {}
    for run in runs:
        if run.config.get(SWEPT) in weights:
            sweeps.setdefault(without_weights(run.config), {})[run.config[SWEPT]] = run.config_hash

    def chosen(run: PlannedRun) -> PlannedRun:
        sweep = {} if run.tuned else sweeps.get(without_weights(run.config), {})
        deciding = [*run.tuned] or [sweep[weight] for weight in sorted(sweep)]
        if not deciding or not {*deciding} <= {*reached.index}:
            return run
        scores = reached.loc[deciding]
        if run.tuned:
            return run.tuned[scores.mean(axis=1).round(6).idxmax()]
        minority = next(iter(found.groups[deciding[0]].values()))
        best = [
            sorted(sweep)[scores[str(label)].fillna(0).argmax()] if label in minority else 1
            for label in range(len(found.val_confusion[deciding[0]]))
        ]
        weigh = f"{CHOSEN}=[{','.join(map(str, best))}]"
        return replace(run, overrides=(*run.overrides, weigh), config={**run.config, CHOSEN: best})

    return [chosen(run) if run.waits else run for run in runs]


def at_grid_ends(runs: Sequence[PlannedRun], choices: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return each method's first choice that is at an end of three settings or more."""
    ends: dict[tuple[str, ...], PlannedRun] = {}  # by the runs that decide
    for run, choice in zip(runs, choices, strict=True):
        tried = [*run.tuned.values()]
        if len(tried) > 2 and (choice is tried[0] or choice is tried[-1]):
            ends.setdefault((*run.tuned,), choice)
    return [*ends.values()]
