"""What is done to a trained classifier: a function each, of the model and its data.

It returns a new model and leaves the given one as it is. What has to be chosen is chosen on the
validation images.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from omegaconf import DictConfig
from pydantic import Field, FiniteFloat, validate_call
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional

from mnist_imbalance.config import build
from mnist_imbalance.data import MNISTData
from mnist_imbalance.errors import ConfigError, naming
from mnist_imbalance.losses import Weight
from mnist_imbalance.methods import frequencies
from mnist_imbalance.metrics import balanced_accuracy

STRENGTHS = [step / 10 for step in range(31)]  # τ from 0, which changes nothing, to 3
Tau = Annotated[FiniteFloat, Field(ge=0)]
TEMPERATURES = (0.05, 20.0)


class Adjusted(nn.Module):
    """A model whose logits (N, C) are scaled, then shifted.

    Args:
        model: Maps images to logits.
        told: What was chosen, for the screen.
        scales: (C,) or one for all.
        offsets: (C,) or one for all.
    """

    scales: Tensor
    offsets: Tensor

    def __init__(
        self,
        model: nn.Module,
        told: str,
        scales: Tensor | float = 1.0,
        offsets: Tensor | float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.told = told
        for name, values in (("scales", scales), ("offsets", offsets)):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K)."""
        logits: Tensor = self.model(images) * self.scales + self.offsets
        return logits


def adjusted(config: DictConfig, data: MNISTData, model: nn.Module) -> nn.Module:
    """Return a trained model after what a config wants done then; on the CPU.

    Raises:
        ConfigError: It cannot be done with these values, or to this model.
    """
    if not config.get("posthoc"):
        return model
    data.to(torch.device("cpu"))
    step = build(config, "posthoc", {"seed": config.seed}, Callable)
    with naming("posthoc"):
        made = step(model, data)
        if not isinstance(made, nn.Module):
            raise TypeError(f"must return a Module, returns a {type(made).__name__}")
        return made


def told_of(model: nn.Module) -> str:
    """Return what was chosen for a model after training, if it says so."""
    return getattr(model, "told", "done")


@torch.no_grad()
def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return a model's logits (N, K) for images (N, C, H, W) uint8."""
    return torch.cat([model(part / 255) for part in torch.split(images, 1000)])


def last_layer(model: nn.Module) -> nn.Linear:
    """Return the last linear layer of a model.

    Raises:
        ConfigError: There is none.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ConfigError("model: has no linear layer whose weights could be changed")
    return layers[-1]


def best_strength(
    tau: float | Sequence[float], adjust: Callable[[float], Tensor], labels: Tensor
) -> tuple[float, str]:
    """Return the smallest τ with the highest balanced accuracy, and what the screen says of it.

    Args:
        tau: The one to take, or those to choose from.
        adjust: τ → the logits (N, C) of the validation images.
        labels: (N,) of these.
    """
    grid = sorted(tau) if isinstance(tau, Sequence) else [tau]
    scores = {tau: round(balanced_accuracy(adjust(tau), labels).item(), 6) for tau in grid}
    best = max(grid, key=scores.__getitem__)
    at_end = len(grid) > 1 and best == grid[-1]
    return best, f"τ={best:g}" + (", the largest of those tried" if at_end else "")


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature T at which softmax(logits / T) is likeliest."""
    low, high = (math.log(end) for end in TEMPERATURES)
    found = minimize_scalar(
        lambda log_t: functional.cross_entropy(logits / math.exp(log_t), labels).item(),
        bounds=(low, high),
        method="bounded",
    )
    return math.exp(found.x)


@validate_call(config={"arbitrary_types_allowed": True})
def logit_adjustment(
    model: nn.Module,
    data: MNISTData,
    *,
    tau: Tau | Annotated[list[Tau], Field(min_length=1)] | None = None,
) -> Adjusted:
    """Take τ log π from the logits, π being each label's part of the training images.

    Menon et al., 2021, "Long-tail learning via logit adjustment", the post-hoc form.

    Args:
        model: Left as it is.
        data: Of its training.
        tau: τ, 1 being the paper's; or some to choose from; None is 0, 0.1, … 3.
    """
    model = copy.deepcopy(model).eval()
    images, labels = data.val
    logits = logits_of(model, images)
    prior = frequencies(data.class_counts).log().float()
    grid = STRENGTHS if tau is None else tau
    best, told = best_strength(grid, lambda tau: logits - tau * prior, labels)
    return Adjusted(model, told, offsets=-best * prior)


def normalized(model: nn.Module, tau: float, keep_bias: bool) -> nn.Module:
    """Return a copy of a model in which each label's last weights are divided by their norm^τ."""
    copied = copy.deepcopy(model).eval()
    layer = last_layer(copied)
    with torch.no_grad():
        layer.weight /= layer.weight.norm(dim=1, keepdim=True) ** tau
        if layer.bias is not None and not keep_bias:
            layer.bias.zero_()
    return copied


@validate_call(config={"arbitrary_types_allowed": True})
def tau_normalized(
    model: nn.Module,
    data: MNISTData,
    *,
    keep_bias: bool,
    tau: Tau | Annotated[list[Tau], Field(min_length=1)] = STRENGTHS[:11],  # of earlier records
) -> Adjusted:
    """Divide each label's last weights by their norm^τ; at τ = 1 all norms are alike.

    Kang et al., 2020, "Decoupling representation and classifier for long-tailed recognition", who
    train with a bias and drop it here.

    Args:
        model: Its last linear layer maps to the logits.
        data: Of its training.
        keep_bias: Leave the bias as it is, or else set it to 0.
        tau: τ, or some to choose from.
    """
    images, labels = data.val

    def scaled(tau: float) -> Tensor:
        return logits_of(normalized(model, tau, keep_bias), images)

    best, told = best_strength(tau, scaled, labels)
    bias = "bias kept" if keep_bias else "no bias"
    return Adjusted(normalized(model, best, keep_bias), f"{told}, {bias}")


def temperature(model: nn.Module, data: MNISTData) -> Adjusted:
    """Divide the logits by the temperature at which the validation labels are likeliest.

    Guo et al., 2017, "On calibration of modern neural networks".
    """
    model = copy.deepcopy(model).eval()
    images, labels = data.val
    found = best_temperature(logits_of(model, images), labels)
    return Adjusted(model, f"T={found:.3g}", scales=1 / found)


@validate_call(config={"arbitrary_types_allowed": True})
def label_shift(model: nn.Module, data: MNISTData, *, prior: list[Weight] | None) -> Adjusted:
    """Take log π from the logits, as `logit_adjustment` with τ = 1, and add the log test prior.

    Hong et al., 2021, "Disentangling label distribution for long-tailed visual recognition"
    (LADE), its post-compensated softmax. ``prior`` None means equal parts of all labels.

    Raises:
        ConfigError: The prior has more or fewer parts than there are labels.
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
