"""Steps after training: a trained model, which they may change, and its data → a new model.

Choices are made on the validation images. Second stages (Kang et al., 2020) train the end of the
model; without transforms the frozen part is computed once.
"""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pydantic import PositiveInt
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from mnist_imbalance.config import NonNegative, Positive
from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.data.samplers import by_frequency, checked
from mnist_imbalance.data.seeds import Seed, derive, generator
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.methods.losses import Fraction, Number, frequencies, label_aware_smoothing
from mnist_imbalance.methods.metrics import balanced_accuracy

STRENGTHS = [step / 10 for step in range(31)]  # τ from 0, which changes nothing, to 3


class Adjusted(nn.Module):
    """A model whose logits (N, K) are scaled, then shifted, by one number or one for each label."""

    def __init__(
        self, model: nn.Module, summary: str, scales: Number = 1, offsets: Number = 0
    ) -> None:
        super().__init__()
        self.model, self.summary = model, summary  # of what was chosen
        self.scales = nn.Buffer(torch.as_tensor(scales, dtype=torch.float32))
        self.offsets = nn.Buffer(torch.as_tensor(offsets, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K)."""
        return torch.mul(self.model(images), self.scales) + self.offsets


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
    tau: float | list[float], adjust: Callable[[float], Tensor], labels: Tensor
) -> tuple[float, str]:
    """Return the smallest τ with the highest balanced accuracy, and a summary.

    ``adjust`` maps τ to the logits (N, K) of the validation images.
    """
    grid = sorted(tau) if isinstance(tau, list) else [tau]
    scores = {tau: round(balanced_accuracy(adjust(tau), labels).item(), 6) for tau in grid}
    best = max(grid, key=scores.__getitem__)
    at_end = len(grid) > 1 and best == grid[-1]
    return best, f"τ={best:g}" + (", the largest of those tried" if at_end else "")


@checked
def logit_adjustment(
    model: nn.Module, data: MNISTData, *, tau: NonNegative | list[NonNegative] | None = None
) -> Adjusted:
    """Take τ log π from the logits, π being each label's share of the training images.

    The post-hoc form of Menon et al., 2021, where τ is 1; None is the best of 0, 0.1, … 3.
    """
    images, labels = data.val
    logits, prior = logits_of(model, images), frequencies(data.class_counts).log().float()
    grid = STRENGTHS if tau is None else tau
    best, summary = best_strength(grid, lambda tau: logits - tau * prior, labels)
    return Adjusted(model, summary, offsets=-best * prior)


@checked
def tau_normalized(
    model: nn.Module,
    data: MNISTData,
    *,
    keep_bias: bool,
    tau: NonNegative | list[NonNegative] = STRENGTHS[:11],  # of earlier records; conf/ lists more
) -> Adjusted:
    """Divide each label's last weights by their norm^τ; at τ = 1 all norms are equal.

    Kang et al., 2020, who train with a bias and drop it here.
    """
    images, labels = data.val

    def normalized(tau: float) -> nn.Module:
        copied = copy.deepcopy(model)
        layer = last_layer(copied)
        with torch.no_grad():
            layer.weight /= layer.weight.norm(dim=1, keepdim=True) ** tau
            if layer.bias is not None and not keep_bias:
                layer.bias.zero_()
        return copied

    best, summary = best_strength(tau, lambda tau: logits_of(normalized(tau), images), labels)
    return Adjusted(normalized(best), f"{summary}, {'bias kept' if keep_bias else 'no bias'}")


def temperature(model: nn.Module, data: MNISTData) -> Adjusted:
    """Divide the logits by the temperature at which the validation labels are likeliest.

    Guo et al., 2017, "On calibration of modern neural networks".
    """
    logits, labels = logits_of(model, data.val[0]), data.val[1]

    found = minimize_scalar(
        lambda log_t: functional.cross_entropy(logits / math.exp(log_t), labels).item(),
        bounds=(math.log(0.05), math.log(20)),
    )
    return Adjusted(model, f"T={math.exp(found.x):.3g}", scales=1 / math.exp(found.x))


@checked
def label_shift(model: nn.Module, data: MNISTData, *, prior: list[Positive] | None) -> Adjusted:
    """Take log π from the logits, as `logit_adjustment` with τ = 1, and add the log test prior.

    Hong et al., 2021, "Disentangling label distribution for long-tailed visual recognition"
    (LADE), its post-compensated softmax. ``prior`` None means equal shares of all labels.
    """
    parts = torch.tensor(prior or [1.0] * len(data.class_counts), dtype=torch.float64)
    offsets = (parts / parts.sum() / frequencies(data.class_counts)).log()
    return Adjusted(model, "stated prior" if prior else "equal prior", offsets=offsets)


def thresholds(model: nn.Module, data: MNISTData) -> Adjusted:
    """Add an offset to each label's logit, with the best balanced accuracy on validation images.

    A round over the labels sets one offset after the other to the middle of its best interval
    between images; there are ten rounds.
    """
    images, labels = data.val
    logits = logits_of(model, images).double()
    offsets = torch.zeros_like(logits[0])
    worth = 1 / labels.bincount()[labels].double()
    for label in [*labels.unique().tolist()] * 10:
        rivals = (logits + offsets).index_fill(1, torch.tensor(label), -math.inf)
        highest, predicted = rivals.max(dim=1)
        wins_from, order = (highest - logits[:, label]).sort()
        gains = torch.where(labels == label, worth, -worth * (predicted == labels))[order]
        reached = functional.pad(gains.cumsum(0), (1, 0))
        best = reached.argmax()
        if reached[best] > reached[(wins_from < offsets[label]).sum()] + 1e-9:
            ends = torch.cat([wins_from[:1] - 1, wins_from, wins_from[-1:] + 1])
            offsets[label] = ends[best : best + 2].mean()
    return Adjusted(model, f"{offsets.min():.3g} to {offsets.max():.3g}", offsets=offsets)


def features_of(model: nn.Module, layer: nn.Linear, images: Tensor) -> Tensor:
    """Return the inputs (N, F) of a last layer, whose outputs must be the logits, for images."""
    seen: list[tuple[Tensor, Tensor]] = []  # the layer's inputs and outputs
    hook = layer.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    with torch.no_grad(), hook:
        for part in torch.split(images, 1000):
            if model(part / 255) is not seen[-1][1]:
                needs = "its last linear layer must give the logits"
                raise ConfigError(f"model: {needs} (for the LSTM: model=lstm_no_relu)")
    return torch.cat([features for features, _ in seen])


@checked
def retrained(
    model: nn.Module,
    data: MNISTData,
    *,
    seed: Seed,
    steps: PositiveInt,
    lr: Positive,  # at first
    batch_size: PositiveInt,
    weight_decay: NonNegative = 0,
    transforms: bool = False,  # draw data.augment and data.transforms anew for every batch
    smoothing: Fraction = 0,  # part of every target that is spread over all labels
    most: Fraction = 0,  # instead, that of the most frequent label in `label_aware_smoothing`
    least: Fraction = 0,  # and that of the rarest
    anew: bool = False,  # draw the last linear layer's weights anew
    lr_factor: NonNegative = 0,  # the layer's rate divided by lr; 0 freezes it
    scaled: bool = False,  # train one factor per label for its logit, bias included
) -> Adjusted:
    """Train the end of a model by SGD with momentum 0.9 and a rate that falls to 0 as a cosine.

    Batches are drawn from the training images, every label being equally likely.
    """
    layer = last_layer(model)
    if anew:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("last layer", seed))
            layer.reset_parameters()
    frozen = partial(features_of, model, layer) if lr_factor else partial(logits_of, model)
    head = layer if lr_factor else nn.Identity()
    loss: nn.Module = nn.CrossEntropyLoss(label_smoothing=smoothing)
    if most:
        loss = label_aware_smoothing(data.class_counts, most, least)
    scales = torch.ones(len(data.class_counts), requires_grad=scaled)
    groups: Any = [{"params": head.parameters(), "lr": lr_factor * lr}, {"params": [scales]}]
    optimizer = SGD(groups, lr, 0.9, weight_decay=weight_decay)
    scheduler = CosineAnnealingLR(optimizer, steps)
    images, labels = data.drawn(0)
    redrawn = transforms and bool(data.augment or data.transforms)
    inputs = images if redrawn else frozen(images)
    draws = generator("balanced draws", seed)
    order = by_frequency(labels, power=0, images=steps * batch_size, generator=draws)
    for step, chosen in enumerate(order.split(batch_size)):
        batch = inputs[chosen]
        if redrawn:
            batch = frozen(data.change(batch, generator("balanced transforms", seed, step)))
        optimizer.zero_grad()
        value = loss(head(batch) * scales, labels[chosen])
        value.backward()
        optimizer.step()
        scheduler.step()
    if not value.isfinite():
        raise ConfigError(f"posthoc.lr: the loss is {value}; try a smaller rate")
    return Adjusted(model, f"{steps} steps", scales=scales.detach())


crt = partial(retrained, anew=True, lr_factor=1)  # classifier re-training
lws = partial(retrained, scaled=True)  # learnable weight scaling
mislas = partial(retrained, scaled=True)  # Zhong et al., 2021, after mixup


class NearestMean(nn.Module):
    """Maps features (N, F) to minus their squared distances from the labels' means, (N, K)."""

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.centre = nn.Buffer(features.mean(dim=0))
        unit = functional.normalize(features - self.centre)
        means = [unit[labels == label].mean(dim=0) for label in labels.unique()]
        self.means = nn.Buffer(torch.stack(means))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, F) to logits (N, K)."""
        unit = functional.normalize(features - self.centre)
        squares = unit.square().sum(dim=1, keepdim=True) + self.means.square().sum(dim=1)
        return 2 * unit @ self.means.T - squares


def ncm(model: nn.Module, data: MNISTData) -> Adjusted:
    """Choose the label with the nearest mean of training features (nearest class mean, NCM).

    As in the authors' code: features less their mean, scaled to norm 1, Euclidean distance.
    """
    layer = last_layer(model)
    images, labels = data.drawn(0)
    nearest = NearestMean(features_of(model, layer, images), labels)
    [name] = [name for name, module in model.named_modules() if module is layer]
    model.set_submodule(name, nearest)
    return Adjusted(model, "means of features")
