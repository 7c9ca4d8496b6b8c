"""From ``conf/`` to checked values and to the parts that they describe."""

import copy
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from pydoc import locate
from typing import Annotated, Any, cast

from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    FiniteFloat,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from mnist_imbalance.data.seeds import Seed
from mnist_imbalance.errors import ConfigError, as_config_error, naming

PACKAGE = Path(__file__).resolve().parent
CONF = next(  # in an installed package, or in the repository
    place / "conf" for place in (PACKAGE, PACKAGE.parent) if (place / "conf").is_dir()
)
# conf/hydra/launcher/joblib.yaml shares the name of its plugin's own config on purpose
SAME_NAME = r"\s*'hydra/launcher/joblib' is validated against ConfigStore schema"
warnings.filterwarnings("ignore", SAME_NAME)
NEEDS = {"slurm": "hydra_plugins.hydra_submitit_launcher", "ray": "ray"}  # what their extras bring
Limit = Annotated[FiniteFloat, Field(gt=0)]  # batches, or a fraction of them


def hydra_at_conf() -> AbstractContextManager[Any]:
    """Let Hydra compose from ``conf/`` meanwhile, unless a command line of ours has begun that."""
    if GlobalHydra.instance().is_initialized():
        return nullcontext()
    context: AbstractContextManager[Any] = initialize_config_dir(str(CONF), version_base="1.3")
    return context


def compose_with(
    overrides: Sequence[str], *, name: str = "train", with_hydra: bool = False
) -> DictConfig:
    """Compose ``conf/<name>.yaml`` as a command line would, with Hydra's own part or not.

    What the process's command line searches beside ``conf/`` is searched here, too.
    """
    searched = list(HydraConfig.get().searchpath) if HydraConfig.initialized() else []
    with hydra_at_conf():
        return compose(
            name,
            [*([f"hydra.searchpath={searched}"] if searched else []), *overrides],
            return_hydra_config=with_hydra,
        )


def take_apart(config: DictConfig) -> tuple[DictConfig, HydraConf]:
    """Split a config that was composed with Hydra's part as Hydra does before it calls a job.

    Returns:
        The job's config, and Hydra's own, which from now on is the process's.
    """
    HydraConfig.instance().set_config(config)
    task = copy.deepcopy(config)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task, HydraConfig.get()


def check_end(end: int) -> int:
    """Let a number of epochs or steps pass, or -1, Lightning's word for no end."""
    if end < 1 and end != -1:
        raise PydanticCustomError("end", "Input should be greater than 0, or -1 for no end")
    return end


End = Annotated[int, AfterValidator(check_end)]


class Part(BaseModel, strict=True):
    """What Hydra builds; its arguments are checked by what they are given to."""

    target: str = Field(alias="_target_", min_length=1)


class OptimizerKeys(Part):
    """What optimizers of every kind need to be told."""

    lr: Annotated[FiniteFloat, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0
    weight_decay: Annotated[FiniteFloat, Field(ge=0)] = 0


class TrainerKeys(Part):
    """The keys of ``lightning.Trainer`` that the rest of the code relies on."""

    accelerator: str
    devices: Annotated[int, Field(gt=0)]
    max_epochs: End
    max_steps: End
    enable_progress_bar: bool
    limit_train_batches: Limit = 1.0
    limit_val_batches: Limit = 1.0
    limit_test_batches: Limit = 1.0


class Keys(BaseModel, strict=True, extra="forbid"):
    """The whole config; what is Any is checked where it is built."""

    seed: Seed
    threads: Annotated[int, Field(gt=0, le=4096)]
    runs_dir: Annotated[str, Field(min_length=1)]
    data: Part
    model: Part
    loss: Part
    optimizer: OptimizerKeys
    metrics: Any
    trainer: TrainerKeys
    scheduler: Any = None  # configs of earlier runs have no such keys
    mix: Any = None
    posthoc: Any = None
    callbacks: Any = None
    logger: Any = None


def check(config: DictConfig) -> None:
    """Check the values that no room of our own checks.

    Raises:
        ConfigError: A value cannot work.
    """
    try:
        Keys.model_validate(OmegaConf.to_container(config, resolve=True))
    except ValidationError as error:
        raise as_config_error(error) from error
    if config.trainer.max_epochs == config.trainer.max_steps == -1:
        raise ConfigError("trainer.max_epochs, trainer.max_steps: one of them must end the run")


def check_installed(name: str) -> None:
    """Refuse a choice of ``hydra/launcher`` whose extra is not installed.

    Raises:
        ConfigError: It is not.
    """
    if name in NEEDS and not find_spec(NEEDS[name]):
        raise ConfigError(f"hydra/launcher: {name} is not installed; pip install -e '.[{name}]'")


def answer(part: Any, known: Mapping[str, Any]) -> Any:
    """Return a part's config with what its class or function asks for by a parameter's name.

    Args:
        part: Of a composed config, with ``_target_``, perhaps nested.
        known: What can be asked for; a value that the config gives stands.
    """
    if isinstance(part, list):
        return [answer(item, known) for item in part]
    if not isinstance(part, dict):
        return part
    answered = {key: answer(value, known) for key, value in part.items()}
    if "_target_" in part:
        asked = known.keys() & asked_for(part["_target_"])
        answered = {key: known[key] for key in sorted(asked)} | answered
    return answered


def asked_for(path: Any) -> set[str]:
    """Return the names of a class's or function's parameters; none where Python cannot tell."""
    try:
        return set(signature(cast("Callable[..., Any]", locate(path))).parameters)
    except Exception:  # building it will tell
        return set()


def build(
    config: DictConfig,
    group: str,
    known: Mapping[str, Any] | None = None,
    kind: Any = object,
    **more: Any,
) -> Any:
    """Return what a config group describes.

    Args:
        config: The whole config.
        group: Its key of the part.
        known: What the part is given where it asks for it, see `answer`.
        kind: The class that it must turn out to be of.
        more: Arguments that it is given whatever the config says.

    Raises:
        ConfigError: It cannot be made with these values.
    """
    found = OmegaConf.select(config, group, throw_on_missing=True)
    if not OmegaConf.is_config(found):
        raise ConfigError(f"{group}: must be a part with its _target_, got {found!r}")
    part = OmegaConf.to_container(found, resolve=True, throw_on_missing=True)
    with naming(group):
        try:
            built = instantiate(answer(part, known or {}), **more, _convert_="all")
        except InstantiationException as error:
            within = re.search(r"full_key: (\w+?)\d*$", str(error))  # a list's items have numbers
            with naming(f"{group}.{within[1]}" if within else group):
                raise error.__cause__ or error from error
        if not isinstance(built, kind):
            raise TypeError(f"must be a {kind.__name__}, is a {type(built).__name__}")
    return built


def build_each(
    config: DictConfig, group: str, known: Mapping[str, Any], kind: Any
) -> dict[str, Any]:
    """Return what each entry of a config group describes, by name, see `build`."""
    part = OmegaConf.select(config, group)
    if part is None:
        return {}
    if not isinstance(part, DictConfig):
        raise ConfigError(f"{group}: must be choices, {group}=[a,b]")
    return {name: build(config, f"{group}.{name}", known, kind) for name in map(str, part)}
