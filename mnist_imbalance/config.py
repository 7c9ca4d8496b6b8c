"""``conf/`` → a composed and checked config → the parts that it describes."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from difflib import get_close_matches
from inspect import cleandoc, isclass, signature
from pathlib import Path
from pydoc import locate
from textwrap import indent
from typing import Annotated, Any, Literal

from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from mnist_imbalance.errors import ConfigError, as_config_error, naming, one_line_errors

PACKAGE = Path(__file__).resolve().parent
# in an installed package, or in the repository
CONF = next(place / "conf" for place in (PACKAGE, PACKAGE.parent) if (place / "conf").is_dir())
# config groups that a record names, with the choice that a folder's name leaves out
CHOICES = {"model": "lstm", "data": "imbalanced", "loss": "plain", "optimizer": "sgd"}


def changed(chosen: Mapping[str, Any]) -> str:
    """Return the choices that are not the usual ones, for a folder's name."""
    words = [f"{name}={chosen.get(name)}" for name in CHOICES if chosen.get(name) != CHOICES[name]]
    return ",".join(words) or "usual"


OmegaConf.register_new_resolver("changed", changed)
# some choices in conf/hydra/launcher share the name of a plugin's own config on purpose
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key."""
    flat = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return flat


@contextmanager
def naming_keys() -> Iterator[None]:
    """Turn Hydra's error about an unknown key into one that names choices, or keys like it."""
    try:
        yield
    except ConfigCompositionException as error:
        unknown = re.match(r"Could not override '(.+?)'", str(error))
        if not unknown:
            raise
        group, _, name = unknown[1].rpartition(".")
        files = (CONF / group.replace(".", "/")).glob("*.yaml") if group else ()
        having = sorted(file.stem for file in files if name in [*OmegaConf.load(file)])
        known: list[str] = []
        for config in (compose_with([], name="search"), compose_with([], name="study")):
            values: Any = OmegaConf.to_container(config)
            known += [*values, *flatten(values)]
        near = " and ".join(get_close_matches(unknown[1], known))
        hint = f"there is {near}" if near else "no key is like it"
        hint = f"choose {group}={' or '.join(having)}, which has it" if having else hint
        raise ConfigError(f"{unknown[1]}: there is no such key; {hint}") from error


def compose_with(
    overrides: Sequence[str], *, name: str = "train", with_hydra: bool = False
) -> DictConfig:
    """Compose ``conf/<name>.yaml`` as this process's command line would."""
    path = list(HydraConfig.get().searchpath) if HydraConfig.initialized() else []
    initialized = GlobalHydra.instance().is_initialized()
    place = nullcontext() if initialized else initialize_config_dir(str(CONF), version_base="1.3")
    with place, naming_keys():
        search = [f"hydra.searchpath={path}"] if path else []
        return compose(name, [*search, *overrides], return_hydra_config=with_hydra)


def activate_hydra(config: DictConfig) -> tuple[DictConfig, HydraConf]:
    """Return a job's config and Hydra's own, and make the latter this process's."""
    HydraConfig.instance().set_config(config)
    keys = [str(key) for key in config if key != "hydra"]
    return OmegaConf.masked_copy(config, keys), HydraConfig.get()


Positive = Annotated[FiniteFloat, Field(gt=0)]
NonNegative = Annotated[FiniteFloat, Field(ge=0)]
End = Annotated[int, Field(ge=-1)]  # -1 is Lightning's word for no end


class OptimizerConfig(BaseModel, strict=True):
    """The keys that all optimizers share."""

    lr: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0
    weight_decay: NonNegative = 0


class TrainerConfig(BaseModel, strict=True):
    """The keys of ``lightning.Trainer`` that other code relies on."""

    devices: Literal[1]  # to use several, sweep with hydra/launcher=joblib
    max_epochs: End
    max_steps: End
    test_with: Literal["last", "best"]  # checkpoint
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    limit_train_batches: Positive = 1.0  # a number of batches, or a fraction of them
    limit_val_batches: Positive = 1.0
    limit_test_batches: Positive = 1.0


class TrainConfig(BaseModel, strict=True, extra="forbid"):
    """A whole config; values of type Any are checked when they are built."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    threads: Annotated[int, Field(gt=0, le=4096)]
    runs_dir: Annotated[str, Field(min_length=1)]
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    data: Any
    model: Any
    loss: Any
    metrics: Any
    scheduler: Any
    mix: Any
    posthoc: Any
    callbacks: Any
    logger: Any


def check(config: DictConfig, choices: Mapping[str, Any] | None = None) -> None:
    """Check the values that no part checks itself, and that some groups have a single choice."""
    for group in (*CHOICES, "scheduler", "mix", "posthoc"):
        if choices is not None and not isinstance(choices.get(group), str):
            raise ConfigError(f"{group}: must be one choice, {group}=name")
    try:
        trainer = TrainConfig.model_validate(OmegaConf.to_container(config, resolve=True)).trainer
    except ValidationError as error:
        raise as_config_error(error) from error
    ends = trainer.max_epochs, trainer.max_steps
    if 0 in ends or ends == (-1, -1):
        raise ConfigError("trainer.max_epochs, trainer.max_steps: above 0, or one of them -1")
    if trainer.test_with == "best" and "checkpoint_best" not in (config.callbacks or {}):
        raise ConfigError("trainer.test_with: best needs callbacks=checkpoint_best")


def targets_of(values: Any) -> Iterator[str]:
    """Yield the path of every part of nested values."""
    if isinstance(values, dict) and "_target_" in values:
        yield str(values["_target_"])
    if isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from targets_of(value)


def refuse_strangers(values: Any, trust: Sequence[str] = ()) -> None:
    """Refuse values of a file that call more than parts of a run, or of packages to ``trust``."""
    import torch  # slow to import, as are these
    from lightning.pytorch import Callback, LightningDataModule, Trainer
    from lightning.pytorch.loggers import Logger
    from torchmetrics import Metric

    kinds: tuple[type, ...] = (Callback, LightningDataModule, Logger, Metric, Trainer)
    kinds += (torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
    own = (
        "torchmetrics.functional.",
        *(f"{__package__}.{n}." for n in ("data", "methods", "models")),
    )
    libraries = {__package__, "lightning", "torch", "torchmetrics", "torchvision"}
    for path in targets_of(values):
        package = path.partition(".")[0]
        if package in trust:
            continue
        part: Any = locate(path) if package in libraries else None
        part = getattr(part, "func", part)  # crt is a partial
        is_kind = isclass(part) and issubclass(part, kinds)
        if not is_kind and not getattr(part, "__module__", "").startswith(own):
            raise ConfigError(f"{path}: is no part of a run; trust {package}, if you wrote it")


def inject(part: Any, known: Mapping[str, Any]) -> Any:
    """Fill in arguments that a part declares but leaves open, or holds as ``???``."""
    if isinstance(part, list):
        return [inject(item, known) for item in part]
    if not isinstance(part, dict):
        return part
    filled = {key: inject(value, known) for key, value in part.items()}
    if "_target_" in part:
        wanted = {key for key, value in part.items() if value == "???"}
        with suppress(Exception):  # building the part names the mistake
            target: Any = locate(part["_target_"])
            wanted |= signature(target).parameters.keys() - part.keys()
        filled |= {key: known[key] for key in sorted(wanted & known.keys())}
    return filled


def part_of(config: DictConfig, group: str, known: Mapping[str, Any] | None = None) -> Any:
    """Return a group of a config as plain values, see `inject`."""
    found = OmegaConf.select(config, group)
    if not OmegaConf.is_config(found):
        raise ConfigError(f"{group}: must be a part with its _target_, got {found!r}")
    part = inject(OmegaConf.to_container(found, resolve=True), known or {})
    for key, value in part.items() if isinstance(part, dict) else ():
        if value == "???":
            raise ConfigError(f"{group}.{key}: a value must be given")
    return part


def build_part(part: Any, group: str, kind: Any = object, **more: Any) -> Any:
    """Build a part from plain values, see `part_of`; an object stays as it is."""
    with naming(group):
        try:
            is_config = isinstance(part, Mapping)
            built = instantiate(part, **more, _convert_="all") if is_config else part
        except InstantiationException as error:
            within = re.search(r"full_key: (\w+?)\d*$", str(error))  # list items have numbers
            with naming(f"{group}.{within[1]}" if within else group):
                raise error.__cause__ or error from error
        if not isinstance(built, kind):
            raise TypeError(f"must be a {kind.__name__}, is a {type(built).__name__}")
    return built


def build(
    config: DictConfig, group: str, known: Mapping[str, Any] | None = None, kind: Any = object
) -> Any:
    """Build the part that a group of a config describes, see `part_of` and `build_part`."""
    return build_part(part_of(config, group, known), group, kind)


def parts_of(config: DictConfig, group: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a group that takes several choices, by name, see `part_of`."""
    parts = OmegaConf.select(config, group)
    return {name: part_of(config, f"{group}.{name}", known) for name in map(str, parts or ())}


def parse(text: str | None, arguments: Mapping[str, Any], name: str = "") -> argparse.Namespace:
    """Read a command line of arguments, and of ``overrides`` of ``conf/<name>.yaml`` if named."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=cleandoc(text or ""), formatter_class=raw)
    if name:
        parser.epilog = f"keys and their defaults:\n\n{describe(name, [])}"
        overrides = {"nargs": "*", "default": [], "metavar": "key=value", "help": "change keys"}
        place = {"type": Path, "help": "one more folder like conf/"}
        arguments = {**arguments, "overrides": overrides, "--config-dir": place}
    for argument, options in arguments.items():
        parser.add_argument(argument, **options)
    given = parser.parse_args()
    if name and given.config_dir:
        given.overrides.insert(0, f"hydra.searchpath=['file://{given.config_dir.absolute()}']")
    return given


def prepare_process() -> None:
    """Make Hydra raise errors, and silence a warning in child processes; see `errors`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints them instead
    in_jobs = "ignore::UserWarning:multiprocessing.process"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.getenv("PYTHONWARNINGS"), in_jobs]))


def describe(name: str, overrides: Sequence[str]) -> str:
    """Return the help of ``conf/<name>.yaml``: the file of each choice, with its comments."""
    choices = compose_with(overrides, name=name, with_hydra=True).hydra.runtime.choices
    parts = [CONF.joinpath(f"{name}.yaml").read_text().partition("\nhydra:")[0]]
    for group, choice in [*choices.items()][::-1]:  # in the order of the defaults
        file = CONF / group / f"{choice}.yaml"
        if file.exists() and not group.startswith("hydra/"):
            others = ", ".join(sorted(other.stem for other in file.parent.glob("*.yaml")))
            text = re.sub("# @package.*\n", "", file.read_text())
            parts.append(f"{group}={choice}, one of {others}\n{indent(text, '  ')}")
    return "\n".join(parts)


def start(job: Callable[[], Any], name: str) -> None:
    """Run a job that Hydra composes from the command line and ``conf/<name>.yaml``."""
    prepare_process()
    with one_line_errors():
        if {"--help", "-h"} & {*sys.argv}:
            given = [word for word in sys.argv[1:] if "=" in word and word[0] != "-"]
            return print(describe(name, given))
        for word in sys.argv[1:]:
            if word.endswith("=null") and (CONF / word[:-5]).is_dir():
                raise ConfigError(f"{word}: must be the name of a choice")
        try:
            with naming_keys():
                job()
        except OSError as error:
            if not error.filename:  # Hydra's MissingConfigException
                raise
            raise ConfigError(f"runs_dir: {error.filename}: {error.strerror}") from error
