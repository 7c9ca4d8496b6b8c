"""``conf/`` → a composed and checked config → the parts that it describes."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from inspect import signature
from pathlib import Path
from pydoc import locate
from typing import Annotated, Any, Literal

from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from mnist_imbalance.errors import ConfigError, as_config_error, naming, one_line_errors

PACKAGE = Path(__file__).resolve().parent
# in an installed package, or in the repository
CONF = next(place / "conf" for place in (PACKAGE, PACKAGE.parent) if (place / "conf").is_dir())
# some choices in conf/hydra/launcher share the name of a plugin's own config on purpose
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore")


def compose_with(
    overrides: Sequence[str], *, name: str = "train", with_hydra: bool = False
) -> DictConfig:
    """Compose ``conf/<name>.yaml`` as this process's command line would."""
    path = list(HydraConfig.get().searchpath) if HydraConfig.initialized() else []
    initialized = GlobalHydra.instance().is_initialized()
    with nullcontext() if initialized else initialize_config_dir(str(CONF), version_base="1.3"):
        search = [f"hydra.searchpath={path}"] if path else []
        return compose(name, [*search, *overrides], return_hydra_config=with_hydra)


def activate_hydra(config: DictConfig) -> tuple[DictConfig, HydraConf]:
    """Return a job's config and Hydra's own, and make the latter this process's."""
    HydraConfig.instance().set_config(config)
    keys = [str(key) for key in config if key != "hydra"]
    return OmegaConf.masked_copy(config, keys), HydraConfig.get()


Positive = Annotated[FiniteFloat, Field(gt=0)]
NonNegative = Annotated[FiniteFloat, Field(ge=0)]
Limit = Positive  # batches, or a fraction of them
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
    limit_train_batches: Limit = 1.0
    limit_val_batches: Limit = 1.0
    limit_test_batches: Limit = 1.0


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


def check(config: DictConfig) -> None:
    """Check the values that no part checks itself."""
    try:
        trainer = TrainConfig.model_validate(OmegaConf.to_container(config, resolve=True)).trainer
    except ValidationError as error:
        raise as_config_error(error) from error
    ends = trainer.max_epochs, trainer.max_steps
    if 0 in ends or ends == (-1, -1):
        raise ConfigError("trainer.max_epochs, trainer.max_steps: above 0, or one of them -1")


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


def overrides_from_arguments(description: str | None, name: str = "train") -> list[str]:
    """Read a command line that takes overrides of ``conf/<name>.yaml`` and nothing else."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"keys and their defaults:\n\n{OmegaConf.to_yaml(compose_with([], name=name))}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change these keys")
    parser.add_argument("--config-dir", type=Path, help="one more folder like conf/")
    given = parser.parse_args()
    place = given.config_dir and given.config_dir.absolute()
    return [*([f"hydra.searchpath=['file://{place}']"] if place else []), *given.overrides]


def prepare_process() -> None:
    """Make Hydra raise errors, and silence a warning in child processes; see `errors`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints them instead
    in_jobs = "ignore::UserWarning:multiprocessing.process"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.getenv("PYTHONWARNINGS"), in_jobs]))


def start(job: Callable[[], Any]) -> None:
    """Run a job that Hydra composes from the command line."""
    prepare_process()
    with one_line_errors():
        for argument in sys.argv[1:]:
            group, _, value = argument.partition("=")
            if value == "null" and (CONF / group).is_dir():
                several = ", or [a,b]" if group in ("callbacks", "logger", "metrics") else ""
                raise ConfigError(f"{argument}: must be the name of a choice{several}")
        try:
            job()
        except OSError as error:
            if not error.filename:  # Hydra's MissingConfigException
                raise
            raise ConfigError(f"runs_dir: {error.filename}: {error.strerror}") from error
