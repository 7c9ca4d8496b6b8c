"""Adjustments of a trained classifier that need no training."""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional

from mnist_imbalance.data.source import Batch
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.metrics import balanced_accuracy

STRENGTHS = tuple(step / 10 for step in range(31))  # τ from 0, which changes nothing, to 3
TEMPERATURES = (0.05, 20.0)


def adjust_logits(logits: Tensor, class_counts: Sequence[int], tau: float) -> Tensor:
    """Return logits (N, C) less τ log π, π being each label's part of the training images.

    Menon et al., 2021, "Long-tail learning via logit adjustment", the post-hoc form.
    """
    counts = torch.tensor(class_counts, dtype=logits.dtype)
    return logits - tau * (counts / counts.sum()).log()


def last_layer(model: nn.Module) -> nn.Linear:
    """Return the last linear layer of a model.

    Raises:
        ConfigError: There is none.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ConfigError("model: has no linear layer whose weights could be normalized")
    return layers[-1]


def tau_normalized(model: nn.Module, tau: float, keep_bias: bool) -> nn.Module:
    """Return a copy of a model in which each label's last weights are divided by their norm^τ.

    Kang et al., 2020, "Decoupling representation and classifier for long-tailed recognition", whose
    classifier has no bias.

    Args:
        model: Its last linear layer maps to the logits.
        tau: From 0, which changes nothing, to 1, where all norms are alike.
        keep_bias: Leave the bias as it is, or else set it to 0.
    """
    copied = copy.deepcopy(model)
    layer = last_layer(copied)
    with torch.no_grad():
        layer.weight /= layer.weight.norm(dim=1, keepdim=True) ** tau
        if layer.bias is not None and not keep_bias:
            layer.bias.zero_()
    return copied


def best_strength(adjusted: Mapping[float, Tensor], labels: Tensor) -> float:
    """Return the smallest τ whose logits, given by τ, have the highest balanced accuracy."""
    scored = {tau: balanced_accuracy(logits, labels).item() for tau, logits in adjusted.items()}
    return max(scored, key=lambda tau: (round(scored[tau], 6), -tau))


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature T at which softmax(logits / T) is likeliest.

    Guo et al., 2017, "On calibration of modern neural networks".
    """
    low, high = (math.log(end) for end in TEMPERATURES)
    found = minimize_scalar(
        lambda log_t: functional.cross_entropy(logits / math.exp(log_t), labels).item(),
        bounds=(low, high),
        method="bounded",
    )
    return math.exp(found.x)


def adjustments(
    model: nn.Module, val: Batch, test: Tensor, class_counts: Sequence[int]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the validation and test logits of a model, as trained and with each adjustment.

    Args:
        model: Maps images (N, C, H, W) in [0, 1] to logits.
        val: Images (N, C, H, W) uint8 and labels, by which τ and T are chosen.
        test: Images.
        class_counts: Training images of each label.
    """
    images, labels = val

    @torch.inference_mode()
    def logits(changed: nn.Module, of: Tensor) -> Tensor:
        return torch.cat([changed(part / 255) for part in torch.split(of, 1000)])

    as_trained = logits(model, images), logits(model, test)
    changed = {"as trained": as_trained}
    tau = best_strength(
        {tau: adjust_logits(as_trained[0], class_counts, tau) for tau in STRENGTHS}, labels
    )
    on_val, on_test = (adjust_logits(each, class_counts, tau) for each in as_trained)
    changed[f"logit adjustment, τ={tau:g}"] = on_val, on_test
    for keep_bias in (True, False):
        scaled = {
            tau: logits(tau_normalized(model, tau, keep_bias), images) for tau in STRENGTHS[:11]
        }
        tau = best_strength(scaled, labels)
        on_test = logits(tau_normalized(model, tau, keep_bias), test)
        told = "bias kept" if keep_bias else "no bias"
        changed[f"τ-normalized, {told}, τ={tau:g}"] = scaled[tau], on_test
    temperature = best_temperature(as_trained[0], labels)
    on_val, on_test = (each / temperature for each in as_trained)
    changed[f"temperature {temperature:.3g}"] = on_val, on_test
    return changed
