"""Losses for imbalanced labels: logits (N, K) and labels (N,) → a scalar.

Most published losses are `AdjustedCrossEntropy` with other numbers for each label; the functions
below compute these from ``class_counts``, the training images of each label (docs/methods.md).
"""

from collections.abc import Sequence
from math import pi
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt, validate_call
from torch import Tensor, nn
from torch.nn import functional

from mnist_imbalance.config import NonNegative, Positive
from mnist_imbalance.errors import ConfigError

Number = Tensor | float  # one for each label, (K,), or one for all
Normalize = Literal["weight_sum", "count"]  # divide a batch's sum by its weights or its images
Counts = Sequence[PositiveInt]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy with a weight for each label (AI3607, section 5).

    A batch's sum is divided by its summed weights (PyTorch's mean) or by its images.
    """

    @validate_call
    def __init__(self, weights: Sequence[Positive], normalize: Normalize = "weight_sum") -> None:
        super().__init__()
        self.weights = nn.Buffer(torch.tensor(weights))
        self.normalize = normalize

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Map logits (N, K) and labels (N,) to a scalar."""
        if self.normalize == "weight_sum":
            return functional.cross_entropy(logits, labels, self.weights)
        return functional.cross_entropy(logits, labels, self.weights, reduction="sum") / len(labels)


class MinorityWeightedCrossEntropy(WeightedCrossEntropy):
    """Cross-entropy with one weight for the minority and 1 for the others (AI3607, section 5.2)."""

    @validate_call
    def __init__(
        self, minority_weight: Positive, minority: list[int], num_classes: int, normalize: Normalize
    ) -> None:
        weights = [minority_weight if n in minority else 1.0 for n in range(num_classes)]
        super().__init__(weights, normalize)


class AdjustedCrossEntropy(nn.Module):
    """Cross-entropy with numbers for each label, the formula of most published losses.

    With p = softmax(Δ ⊙ z + ι − m_y·1_y), the loss of an image with logits z and label y is
    ℓ = w_y · (1 − p_y)^γ · ((1 − ε_y) · −log p_y + ε_y · mean over all labels of −log p).
    The numbers are buffers, so that runs with different ones can be trained side by side.
    """

    @validate_call(config={"arbitrary_types_allowed": True})
    def __init__(
        self,
        num_classes: int,  # K
        *,
        weights: Number = 1,  # w
        scales: Number = 1,  # Δ
        offsets: Number = 0,  # ι
        margins: Number = 0,  # m, not deferred
        smoothing: Number = 0,  # ε
        gamma: float = 0.0,
        normalize: Normalize = "count",
        deferred: Fraction = 0,  # part of training that begins with plain cross-entropy
    ) -> None:
        super().__init__()
        self.normalize, self.deferred, self.later = normalize, deferred, dict[str, Tensor]()
        by_label = {"weights": weights, "scales": scales, "offsets": offsets, "margins": margins}
        for name, number in (by_label | {"smoothing": smoothing, "gamma": gamma}).items():
            later = torch.as_tensor(number).float().expand(() if name == "gamma" else num_classes)
            plain = torch.full_like(later, name in ("weights", "scales"))
            self.register_buffer(name, plain if deferred and name != "margins" else later.clone())
            self.later[name] = later

    def start_epoch(self, done: float) -> None:
        """Set the numbers once the deferred fraction of training is done."""
        if done >= self.deferred:
            for name, number in self.later.items():
                self.get_buffer(name).copy_(number)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Map logits (N, K) and labels (N,) to a scalar."""
        weights, scales, offsets, margins, smoothing, gamma = self.buffers()
        margins = functional.one_hot(labels, logits.shape[1]) * margins
        log_p = (scales * logits + offsets - margins).log_softmax(dim=1)
        own = -log_p.gather(1, labels.unsqueeze(1)).squeeze(1)
        smoothing, weights = smoothing[labels], weights[labels]
        crossed = (1 - smoothing) * own - smoothing * log_p.mean(dim=1)
        wrong = (-torch.expm1(-own)).clamp(min=torch.finfo(log_p.dtype).tiny)
        total = (weights * wrong**gamma * crossed).sum()
        return total / (weights.sum() if self.normalize == "weight_sum" else len(labels))


def frequencies(class_counts: Sequence[int]) -> Tensor:
    """Return each label's share of the images, (K,)."""
    counts = torch.tensor(class_counts, dtype=torch.float64)
    return counts / counts.sum()


def effective_weights(class_counts: Sequence[int], beta: float) -> Tensor:
    """Return w ∝ (1 − β) / (1 − β^n), scaled to a mean of 1 (Cui et al., 2019)."""
    weights = (1 - beta) / (1 - beta ** torch.tensor(class_counts, dtype=torch.float64))
    return weights / weights.mean()


@validate_call
def focal(
    class_counts: Counts,
    gamma: NonNegative = 2,
    weights: Sequence[Positive] | None = None,
    beta: Fraction = 0,
    **options: Any,  # of `AdjustedCrossEntropy`
) -> nn.Module:
    """Return the focal loss, −w_y (1 − p_y)^γ log p_y: correct images count less.

    Lin et al., 2017, "Focal loss for dense object detection", equations 4 and 5, with softmax as in
    Cao et al.'s code, where Lin et al. have a sigmoid; ``weights`` is their α. With β these are
    multiplied by the weights of `class_balanced` (Cui et al., 2019).
    """
    numbers = effective_weights(class_counts, beta) * torch.tensor(weights or 1.0)
    return AdjustedCrossEntropy(len(class_counts), weights=numbers, gamma=gamma, **options)


@validate_call
def class_balanced(class_counts: Counts, beta: Fraction = 0.9999, **options: Any) -> nn.Module:
    """Return cross-entropy weighted by w ∝ (1 − β) / (1 − β^n); β = 0 is plain.

    Cui et al., 2019, "Class-balanced loss based on effective number of samples". Deferred, it is
    the re-weighting of Cao et al.'s code; their paper has w ∝ 1 / n.
    """
    weights = effective_weights(class_counts, beta)
    return AdjustedCrossEntropy(len(class_counts), weights=weights, **options)


@validate_call
def inverse_frequency(class_counts: Counts, power: NonNegative = 1, **options: Any) -> nn.Module:
    """Return cross-entropy weighted by w ∝ n^−power, scaled to a mean of 1; power 0 is plain.

    Power 1 is the usual re-weighting, ½ its smoothed form (SubpopBench; Yang et al., 2023).
    """
    weights = frequencies(class_counts) ** -power
    return AdjustedCrossEntropy(len(class_counts), weights=weights / weights.mean(), **options)


@validate_call
def ldam(
    class_counts: Counts,
    head: str | None,
    max_margin: NonNegative = 0.5,
    scale: Positive = 30,
    beta: Fraction = 0,
    **options: Any,  # of `AdjustedCrossEntropy`
) -> nn.Module:
    """Return the label-distribution-aware margin loss, −w_y log softmax(s (cos − m_y 1_y))_y.

    Cao et al., 2019, "Learning imbalanced datasets with label-distribution-aware margin loss":
    m ∝ n^−¼, at most ``max_margin``. The model's logits are its cosines times s, its ``scale``.
    β weights the loss as `class_balanced` does, deferred or not; margins are never deferred.
    """
    if head != "cosine":
        raise ConfigError(f"model.head: ldam needs cosine, which bounds the logits, got {head}")
    weights, margins = effective_weights(class_counts, beta), frequencies(class_counts) ** -0.25
    margins = scale * max_margin * margins / margins.max()
    return AdjustedCrossEntropy(len(class_counts), weights=weights, margins=margins, **options)


@validate_call
def vs(
    class_counts: Counts, gamma: NonNegative = 0.3, tau: NonNegative = 1, **options: Any
) -> nn.Module:
    """Return the vector-scaling loss, −log softmax(Δ ⊙ z + ι)_y, Δ = (n / n_max)^γ, ι = τ log π.

    π is each label's share of the images. Kini et al., 2021, "Label-imbalanced and group-sensitive
    classification under overparameterization". τ = 0 gives class-dependent temperatures (Ye et al.,
    2020, "Identifying and compensating for feature deviation in imbalanced deep learning"), γ = 0
    logit adjustment (Menon et al., 2021, "Long-tail learning via logit adjustment"), with τ = 1
    balanced softmax (Ren et al., 2020, "Balanced meta-softmax for long-tailed visual recognition").
    """
    shares = frequencies(class_counts)
    scales, offsets = (shares / shares.max()) ** gamma, tau * shares.log()
    return AdjustedCrossEntropy(len(class_counts), scales=scales, offsets=offsets, **options)


@validate_call
def label_aware_smoothing(
    class_counts: Counts,
    most: Fraction = 0.4,  # of the first records; conf/ has the authors' numbers for ten labels,
    least: Fraction = 0.1,  # in conf/loss at a ratio of 100 : 1 and in conf/posthoc at 10 : 1
    **options: Any,  # of `AdjustedCrossEntropy`
) -> nn.Module:
    """Return cross-entropy that smooths the targets of frequent labels more.

    Zhong et al., 2021, "Improving calibration for long-tailed recognition", in its concave form:
    ε = least + (most − least) sin(π/2 · (n − n_min) / (n_max − n_min)). As in PyTorch, ε is spread
    over all labels, the own one included.
    """
    counts = torch.tensor(class_counts, dtype=torch.float64)
    above = counts - counts.min()
    smoothing = least + (most - least) * (above / above.max().clamp(min=1) * pi / 2).sin()
    return AdjustedCrossEntropy(len(class_counts), smoothing=smoothing, **options)
