"""Second stages of training: the last layer or its scale, on as many images of each label.

Kang et al., 2020, "Decoupling representation and classifier for long-tailed recognition". What is
frozen is computed once for all training images; a step then costs no more than a linear layer.
"""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Annotated

import torch
from pydantic import Field, FiniteFloat, PositiveInt, validate_call
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from mnist_imbalance.data import MNISTData
from mnist_imbalance.data.samplers import by_frequency
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.models.heads import CosineLinear
from mnist_imbalance.posthoc import Adjusted, last_layer, logits_of
from mnist_imbalance.seeds import Seed, derive, generator

Rate = Annotated[FiniteFloat, Field(gt=0)]


def features_of(model: nn.Module, layer: nn.Linear, images: Tensor) -> Tensor:
    """Return what a model's last layer is given for images (N, C, H, W) uint8, (N, F).

    Raises:
        ConfigError: The layer's outputs are not the model's logits.
    """
    features: list[Tensor] = []
    outputs: list[Tensor] = []

    def look(_: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        features.append(given[0])
        outputs.append(output)

    with torch.no_grad(), layer.register_forward_hook(look):
        for part in torch.split(images, 1000):
            if model(part / 255) is not outputs.pop():
                raise ConfigError(
                    "model.output_relu: must be false for posthoc=crt, which trains the last "
                    "linear layer and needs its outputs as logits"
                )
    return torch.cat(features)


def train_balanced(
    model: Callable[[Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    inputs: Tensor,
    labels: Tensor,
    *,
    seed: int,
    steps: int,
    lr: float,
    batch_size: int,
) -> None:
    """Train by SGD with momentum 0.9 and a rate that falls to 0 as a cosine.

    Args:
        model: Maps inputs to logits (N, C).
        parameters: What is trained.
        inputs: (N, ...), of all training images.
        labels: (N,).
        seed: Chooses the images of each batch, every label being as likely.
        steps: Optimizer steps.
        lr: The rate at first.
        batch_size: Images a step.

    Raises:
        ConfigError: The loss diverges.
    """
    draws = generator("balanced draws", seed)
    order = by_frequency(labels, power=0, images=steps * batch_size, generator=draws)
    optimizer = SGD(parameters, lr=lr, momentum=0.9)
    scheduler = CosineAnnealingLR(optimizer, steps)
    for chosen in order.split(batch_size):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs[chosen]), labels[chosen])
        loss.backward()
        optimizer.step()
        scheduler.step()
    optimizer.zero_grad()
    if not math.isfinite(loss.item()):
        raise ConfigError(f"posthoc.lr: the loss is {loss.item()}; try a smaller rate")


@validate_call(config={"arbitrary_types_allowed": True})
def crt(
    model: nn.Module,
    data: MNISTData,
    *,
    seed: Seed,
    steps: PositiveInt,
    lr: Rate,
    batch_size: PositiveInt,
) -> Adjusted:
    """Re-train the classifier: draw the last linear layer anew and train it alone (cRT).

    Args:
        model: Its last linear layer's outputs are the logits.
        data: Of its training.
        seed: Of the layer's new weights and of the images drawn.
        steps: See `train_balanced`, as the rest.
        lr: Likewise.
        batch_size: Likewise.

    Raises:
        ConfigError: The layer's outputs are not the logits, or cosines; or the loss diverges.
    """
    copied = copy.deepcopy(model).eval()
    layer = last_layer(copied)
    if isinstance(layer, CosineLinear):
        raise ConfigError("model.head: must be linear for posthoc=crt, cosines are too small")
    images, labels = data.drawn(0)
    features = features_of(copied, layer, images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("last layer", seed))
        layer.reset_parameters()
    train_balanced(
        layer,
        layer.parameters(),
        features,
        labels,
        seed=seed,
        steps=steps,
        lr=lr,
        batch_size=batch_size,
    )
    return Adjusted(copied, f"{steps} steps")


@validate_call(config={"arbitrary_types_allowed": True})
def lws(
    model: nn.Module,
    data: MNISTData,
    *,
    seed: Seed,
    steps: PositiveInt,
    lr: Rate,
    batch_size: PositiveInt,
) -> Adjusted:
    """Train one factor a label, by which its logit is multiplied (learnable weight scaling, LWS).

    As in the authors' code, the factor is of the weights and the bias.

    Args:
        model: Left as it is.
        data: Of its training.
        seed: Of the images drawn.
        steps: See `train_balanced`, as the rest.
        lr: Likewise.
        batch_size: Likewise.

    Raises:
        ConfigError: The loss diverges.
    """
    copied = copy.deepcopy(model).eval()
    images, labels = data.drawn(0)
    logits = logits_of(copied, images)
    scales = nn.Parameter(torch.ones(logits.shape[1]))
    train_balanced(
        lambda chosen: chosen * scales,
        [scales],
        logits,
        labels,
        seed=seed,
        steps=steps,
        lr=lr,
        batch_size=batch_size,
    )
    return Adjusted(copied, f"{steps} steps", scales=scales.detach())
