"""Steps after training: functions of a trained model and its data that return a new model.

Choices are made on the validation images. Second stages (Kang et al., 2020, "Decoupling
representation and classifier for long-tailed recognition") train the end of the model on as many
images of each label; without transforms the frozen part is computed once, and a step costs no more
than a linear layer.
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Required, Unpack

import torch
from pydantic import Field, FiniteFloat, PositiveInt, validate_call, with_config
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR
from typing_extensions import TypedDict

from mnist_imbalance.data.copies import transform_each
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.data.samplers import by_frequency
from mnist_imbalance.data.seeds import Seed, derive, generator
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.methods.losses import Fraction, Weight, frequencies, label_aware_smoothing
from mnist_imbalance.methods.metrics import balanced_accuracy

STRENGTHS = [step / 10 for step in range(31)]  # τ from 0, which changes nothing, to 3
TEMPERATURES = (0.05, 20.0)
Tau = Annotated[FiniteFloat, Field(ge=0)]
Grid = Annotated[list[Tau], Field(min_length=1)]
Rate = Annotated[FiniteFloat, Field(gt=0)]
checked = validate_call(config={"arbitrary_types_allowed": True})


class Adjusted(nn.Module):
    """A model whose logits (N, C) are scaled, then shifted, by one number or one for each label."""

    scales: Tensor
    offsets: Tensor

    def __init__(
        self,
        model: nn.Module,
        summary: str,  # of what was chosen
        scales: Tensor | float = 1.0,
        offsets: Tensor | float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.summary = summary
        for name, values in (("scales", scales), ("offsets", offsets)):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K)."""
        logits: Tensor = self.model(images) * self.scales + self.offsets
        return logits


@torch.no_grad()
def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return a model's logits (N, K) for images (N, C, H, W) uint8."""
    return torch.cat([model(part / 255) for part in torch.split(images, 1000)])


def last_layer(model: nn.Module) -> nn.Linear:
    """Return the last linear layer of a model; none is a `ConfigError`."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ConfigError("model: has no linear layer whose weights could be changed")
    return layers[-1]


def best_strength(
    tau: float | Sequence[float], adjust: Callable[[float], Tensor], labels: Tensor
) -> tuple[float, str]:
    """Return the smallest τ with the highest balanced accuracy, and a summary.

    ``adjust`` maps τ to the logits (N, C) of the validation images.
    """
    grid = sorted(tau) if isinstance(tau, Sequence) else [tau]
    scores = {tau: round(balanced_accuracy(adjust(tau), labels).item(), 6) for tau in grid}
    best = max(grid, key=scores.__getitem__)
    at_end = len(grid) > 1 and best == grid[-1]
    return best, f"τ={best:g}" + (", the largest of those tried" if at_end else "")


@checked
def logit_adjustment(
    model: nn.Module, data: MNISTData, *, tau: Tau | Grid | None = None
) -> Adjusted:
    """Take τ log π from the logits, π being each label's share of the training images.

    Menon et al., 2021, "Long-tail learning via logit adjustment", the post-hoc form, where τ is 1.
    None is the best of 0, 0.1, … 3.
    """
    model = copy.deepcopy(model).eval()
    images, labels = data.val
    logits = logits_of(model, images)
    prior = frequencies(data.class_counts).log().float()
    grid = STRENGTHS if tau is None else tau
    best, summary = best_strength(grid, lambda tau: logits - tau * prior, labels)
    return Adjusted(model, summary, offsets=-best * prior)


def normalized(model: nn.Module, tau: float, keep_bias: bool) -> nn.Module:
    """Return a copy of a model in which each label's last weights are divided by their norm^τ."""
    copied = copy.deepcopy(model).eval()
    layer = last_layer(copied)
    with torch.no_grad():
        layer.weight /= layer.weight.norm(dim=1, keepdim=True) ** tau
        if layer.bias is not None and not keep_bias:
            layer.bias.zero_()
    return copied


@checked
def tau_normalized(
    model: nn.Module,
    data: MNISTData,
    *,
    keep_bias: bool,
    tau: Tau | Grid = STRENGTHS[:11],  # of earlier records
) -> Adjusted:
    """Divide each label's last weights by their norm^τ; at τ = 1 all norms are equal.

    Kang et al., 2020, who train with a bias and drop it here.
    """
    images, labels = data.val

    def scaled(tau: float) -> Tensor:
        return logits_of(normalized(model, tau, keep_bias), images)

    best, summary = best_strength(tau, scaled, labels)
    bias = "bias kept" if keep_bias else "no bias"
    return Adjusted(normalized(model, best, keep_bias), f"{summary}, {bias}")


def temperature(model: nn.Module, data: MNISTData) -> Adjusted:
    """Divide the logits by the temperature at which the validation labels are likeliest.

    Guo et al., 2017, "On calibration of modern neural networks".
    """
    model = copy.deepcopy(model).eval()
    images, labels = data.val
    logits = logits_of(model, images)
    found = minimize_scalar(
        lambda log_t: functional.cross_entropy(logits / math.exp(log_t), labels).item(),
        bounds=[math.log(end) for end in TEMPERATURES],
        method="bounded",
    )
    return Adjusted(model, f"T={math.exp(found.x):.3g}", scales=1 / math.exp(found.x))


@checked
def label_shift(model: nn.Module, data: MNISTData, *, prior: list[Weight] | None) -> Adjusted:
    """Take log π from the logits, as `logit_adjustment` with τ = 1, and add the log test prior.

    Hong et al., 2021, "Disentangling label distribution for long-tailed visual recognition"
    (LADE), its post-compensated softmax. ``prior`` None means equal shares of all labels.
    """
    labels = len(data.class_counts)
    if prior and len(prior) != labels:
        raise ConfigError(f"posthoc.prior: must have {labels} parts, got {len(prior)}")
    parts = torch.tensor(prior or [1.0] * labels, dtype=torch.float64)
    offsets = (parts / parts.sum() / frequencies(data.class_counts)).log()
    summary = "stated prior" if prior else "equal prior"
    return Adjusted(copy.deepcopy(model).eval(), summary, offsets=offsets)


def best_offsets(logits: Tensor, labels: Tensor) -> Tensor:
    """Return offsets (C,) with the best balanced accuracy that ten rounds over the labels find.

    A round sets one offset after the other to the middle of its best interval between images.
    """
    logits = logits.double()
    offsets = torch.zeros_like(logits[0])
    worth = 1 / labels.bincount()[labels].double()
    for label in [*range(len(offsets))] * 10:
        rivals = (logits + offsets).index_fill(1, torch.tensor(label), -math.inf)
        highest, predicted = rivals.max(dim=1)
        wins_from, order = (highest - logits[:, label]).sort()
        gains = torch.where(labels == label, worth, -worth * (predicted == labels))[order]
        reached = functional.pad(gains.cumsum(0), (1, 0))
        best = reached.argmax()
        if reached[best] > reached[(wins_from < offsets[label]).sum()] + 1e-9:
            ends = torch.cat([wins_from[:1] - 1, wins_from, wins_from[-1:] + 1])
            offsets[label] = ends[best : best + 2].mean()
    return offsets


def thresholds(model: nn.Module, data: MNISTData) -> Adjusted:
    """Add an offset to each label's logit, chosen for balanced accuracy on validation images."""
    model = copy.deepcopy(model).eval()
    images, labels = data.val
    offsets = best_offsets(logits_of(model, images), labels)
    return Adjusted(model, f"{offsets.min():.3g} to {offsets.max():.3g}", offsets=offsets)


@with_config(extra="forbid")
class Training(TypedDict, total=False):
    """The keys of every second stage; configs of earlier runs have the first three."""

    steps: Required[PositiveInt]
    lr: Required[Rate]  # at first
    batch_size: Required[PositiveInt]
    weight_decay: Annotated[FiniteFloat, Field(ge=0)]
    transforms: bool  # draw data.transforms anew for every image of every batch


def features_of(model: nn.Module, layer: nn.Linear, images: Tensor) -> Tensor:
    """Return the inputs (N, F) of a last layer, whose outputs must be the logits, for images."""
    seen: list[tuple[Tensor, Tensor]] = []  # the layer's inputs and outputs

    def keep(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.append((inputs[0], output))

    with torch.no_grad(), layer.register_forward_hook(keep):
        for part in torch.split(images, 1000):
            if model(part / 255) is not seen[-1][1]:
                raise ConfigError(
                    "model.output_relu: must be false for posthoc=crt, mislas and ncm, which need "
                    "the last linear layer's outputs as logits"
                )
    return torch.cat([features for features, _ in seen])


def retrained(
    model: nn.Module,
    data: MNISTData,
    loss: nn.Module,
    seed: int,
    training: Training,
    *,
    layer_rate: float = 0,  # of the last linear layer, times the rate; 0 freezes it
    scaled: bool = False,  # train one factor a label, of its logit
    anew: bool = False,  # draw the layer's weights anew
) -> Adjusted:
    """Train the end of a model by SGD with momentum 0.9 and a rate that falls to 0 as a cosine.

    Batches are drawn from the training images, every label being equally likely.
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


@checked
def crt(
    model: nn.Module,
    data: MNISTData,
    *,
    seed: Seed,
    smoothing: Fraction = 0,  # part of every target that is spread over all labels
    **training: Unpack[Training],
) -> Adjusted:
    """Draw the last linear layer anew and train it alone (classifier re-training, cRT)."""
    loss = nn.CrossEntropyLoss(label_smoothing=smoothing)
    return retrained(model, data, loss, seed, training, layer_rate=1, anew=True)


@checked
def lws(model: nn.Module, data: MNISTData, *, seed: Seed, **training: Unpack[Training]) -> Adjusted:
    """Train one factor a label, of its logit, bias included (learnable weight scaling, LWS)."""
    return retrained(model, data, nn.CrossEntropyLoss(), seed, training, scaled=True)


@checked
def mislas(
    model: nn.Module,
    data: MNISTData,
    *,
    seed: Seed,
    most: Fraction,
    least: Fraction,
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
