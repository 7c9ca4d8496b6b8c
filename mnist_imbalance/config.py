"""From ``conf/`` to checked values and to the parts that they describe."""

from typing import Annotated, Any, Literal

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    FiniteFloat,
    PositiveInt,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from mnist_imbalance.errors import ConfigError, as_config_error
from mnist_imbalance.seeds import Seed

Limit = Annotated[FiniteFloat, Field(gt=0)]  # batches, or a fraction of them


def check_end(end: int) -> int:
    """Let a number of epochs or steps pass, or -1, Lightning's word for no end."""
    if end < 1 and end != -1:
        raise PydanticCustomError("end", "Input should be greater than 0, or -1 for no end")
    return end


End = Annotated[int, AfterValidator(check_end)]


class OptimizerKeys(BaseModel, strict=True):
    """What optimizers of every kind need to be told."""

    lr: Annotated[FiniteFloat, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0
    weight_decay: Annotated[FiniteFloat, Field(ge=0)] = 0


class TrainerKeys(BaseModel, strict=True):
    """The keys of ``lightning.Trainer`` that the rest of the code relies on."""

    accelerator: str
    devices: Literal[1]
    max_epochs: End
    max_steps: End
    enable_progress_bar: bool
    limit_train_batches: Limit = 1.0
    limit_val_batches: Limit = 1.0
    limit_test_batches: Limit = 1.0


class Keys(BaseModel, strict=True, extra="forbid"):
    """The whole config; what is Any is checked where it is built."""

    seed: Seed
    threads: PositiveInt
    runs_dir: str
    data: Any
    model: Any
    loss: Any
    optimizer: OptimizerKeys
    trainer: TrainerKeys


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


def build(config: DictConfig, group: str, **more: Any) -> Any:
    """Make what a config group describes.

    Raises:
        ConfigError: It cannot be made with these values.
    """
    try:
        return instantiate(config[group], **more, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValidationError):
            raise as_config_error(cause, prefix=f"{group}.") from error
        if isinstance(cause, ValueError | TypeError | ImportError | MisconfigurationException):
            raise ConfigError(f"{group}: {' '.join(str(cause).split())}") from error
        raise
