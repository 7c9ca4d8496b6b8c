"""Second stages of training: the last layer, its scale or both, on as many images of each label.

Kang et al., 2020, "Decoupling representation and classifier for long-tailed recognition". Without
transforms the frozen part is computed once, and a step costs no more than a linear layer.
"""

import copy
import math
from functools import partial
from typing import Annotated, Any, Required, Unpack

import torch
from pydantic import Field, FiniteFloat, PositiveInt, validate_call
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR
from typing_extensions import TypedDict

from mnist_imbalance.data import MNISTData
from mnist_imbalance.data.samplers import by_frequency
from mnist_imbalance.data.transforms import transform_each
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.methods import Smoothing, label_aware_smoothing
from mnist_imbalance.posthoc import Adjusted, last_layer, logits_of
from mnist_imbalance.seeds import Seed, derive, generator

Rate = Annotated[FiniteFloat, Field(gt=0)]


class Training(TypedDict, total=False):
    """The keys of every second stage; configs of earlier runs have the first three."""

    steps: Required[PositiveInt]
    lr: Required[Rate]  # at first
    batch_size: Required[PositiveInt]
    weight_decay: Annotated[FiniteFloat, Field(ge=0)]
    transforms: bool  # draw data.transforms anew for every image of every batch


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
                    "model.output_relu: must be false for posthoc=crt, mislas and ncm, which need "
                    "the last linear layer's outputs as logits"
                )
    return torch.cat(features)


def retrained(
    model: nn.Module,
    data: MNISTData,
    loss: nn.Module,
    seed: int,
    training: Training,
    *,
    layer_rate: float = 0,
    scaled: bool = False,
    anew: bool = False,
) -> Adjusted:
    """Train the end of a model by SGD with momentum 0.9 and a rate that falls to 0 as a cosine.

    Args:
        model: Left as it is.
        data: Its training images are drawn, every label being as likely.
        loss: Maps logits (N, C) and labels (N,) to a scalar.
        seed: Of the draws and of new weights.
        training: Rate, steps and the like.
        layer_rate: Of the last linear layer, times the rate; 0 leaves the layer as it is.
        scaled: Train one factor a label, by which its logit is multiplied.
        anew: Draw the layer's weights anew.

    Raises:
        ConfigError: The layer's outputs are not the logits, or the loss diverges.
    """
    model = copy.deepcopy(model).eval()
    layer, steps, size = last_layer(model), training["steps"], training["batch_size"]
    if anew:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("last layer", seed))
            layer.reset_parameters()
    frozen = partial(features_of, model, layer) if layer_rate else partial(logits_of, model)
    head = layer if layer_rate else nn.Identity()
    scales = torch.ones(len(data.class_counts), requires_grad=scaled)
    groups: list[dict[str, Any]] = [
        {"params": [*head.parameters()], "lr": layer_rate * training["lr"]},
        {"params": [scales] if scaled else []},
    ]
    optimizer = SGD(groups, training["lr"], 0.9, weight_decay=training.get("weight_decay", 0))
    scheduler = CosineAnnealingLR(optimizer, steps)
    images, labels = data.drawn(0)
    redrawn = bool(training.get("transforms") and data.transforms)
    inputs = images if redrawn else frozen(images)
    draws = generator("balanced draws", seed)
    order = by_frequency(labels, power=0, images=steps * size, generator=draws)
    for step, chosen in enumerate(order.split(size)):
        batch = inputs[chosen]
        if redrawn:
            chance = generator("balanced transforms", seed, step)
            batch = frozen(transform_each(batch, data.transforms, chance))
        optimizer.zero_grad()
        value = loss(head(batch) * scales, labels[chosen])
        value.backward()
        optimizer.step()
        scheduler.step()
    optimizer.zero_grad()
    if not math.isfinite(value.item()):
        raise ConfigError(f"posthoc.lr: the loss is {value.item()}; try a smaller rate")
    return Adjusted(model, f"{steps} steps", scales=scales.detach())


@validate_call(config={"arbitrary_types_allowed": True})
def crt(
    model: nn.Module,
    data: MNISTData,
    *,
    seed: Seed,
    smoothing: Smoothing = 0,
    **training: Unpack[Training],
) -> Adjusted:
    """Draw the last linear layer anew and train it alone (classifier re-training, cRT).

    ``smoothing`` is the part of every target that is spread over all labels.

    Raises:
        ConfigError: The layer's outputs are not the logits, or the loss diverges.
    """
    loss = nn.CrossEntropyLoss(label_smoothing=smoothing)
    return retrained(model, data, loss, seed, training, layer_rate=1, anew=True)


@validate_call(config={"arbitrary_types_allowed": True})
def lws(model: nn.Module, data: MNISTData, *, seed: Seed, **training: Unpack[Training]) -> Adjusted:
    """Train one factor a label, of its logit, bias included (learnable weight scaling, LWS)."""
    return retrained(model, data, nn.CrossEntropyLoss(), seed, training, scaled=True)


@validate_call(config={"arbitrary_types_allowed": True})
def mislas(
    model: nn.Module,
    data: MNISTData,
    *,
    seed: Seed,
    most: Smoothing,
    least: Smoothing,
    lr_factor: Rate,
    **training: Unpack[Training],
) -> Adjusted:
    """Train the last layer further, and factors as in LWS, by `label_aware_smoothing`.

    Zhong et al., 2021, "Improving calibration for long-tailed recognition" (MiSLAS), after mixup.
    ``lr_factor`` is the layer's rate divided by that of the factors.
    """
    loss = label_aware_smoothing(data.class_counts, most, least)
    return retrained(model, data, loss, seed, training, layer_rate=lr_factor, scaled=True)


class NearestMean(nn.Module):
    """Maps features (N, F) to minus their squared distances from the labels' means, (N, C)."""

    centre: Tensor
    means: Tensor

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", features.mean(dim=0))
        unit = functional.normalize(features - self.centre)
        means = [unit[labels == label].mean(dim=0) for label in labels.unique()]
        self.register_buffer("means", torch.stack(means))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, F) to logits (N, C)."""
        unit = functional.normalize(features - self.centre)
        squares = unit.square().sum(dim=1, keepdim=True) + self.means.square().sum(dim=1)
        return 2 * unit @ self.means.T - squares


def ncm(model: nn.Module, data: MNISTData) -> Adjusted:
    """Choose the label with the nearest mean of training features (nearest class mean, NCM).

    As in the authors' code: features less their mean, brought to norm 1, Euclidean distance.
    """
    model = copy.deepcopy(model).eval()
    layer = last_layer(model)
    images, labels = data.drawn(0)
    nearest = NearestMean(features_of(model, layer, images), labels)
    [name] = [name for name, module in model.named_modules() if module is layer]
    model.set_submodule(name, nearest)
    return Adjusted(model, "means of features")
