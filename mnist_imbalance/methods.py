"""Published losses for imbalanced labels, as numbers of one formula.

Each function maps the training images of each label, ``class_counts``, to an
`AdjustedCrossEntropy`; ``docs/methods.md`` lists the numbers. For the fraction ``deferred`` of
training the loss is plain cross-entropy (deferred re-weighting, Cao et al., 2019).
"""

from collections.abc import Sequence
from math import pi
from typing import Annotated

import torch
from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, validate_call
from torch import Tensor

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.losses import AdjustedCrossEntropy, Normalize, Weight, check_number

Counts = Sequence[PositiveInt]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Exponent = Annotated[FiniteFloat, Field(ge=0)]
Smoothing = Annotated[float, Field(ge=0, lt=1)]


def frequencies(class_counts: Counts) -> Tensor:
    """Return the labels' parts of all images, (C,)."""
    counts = torch.tensor(class_counts, dtype=torch.float64)
    return counts / counts.sum()


def summing_to_their_number(weights: Tensor) -> Tensor:
    """Return the weights (C,) scaled so that their mean is 1."""
    return weights / weights.mean()


def effective_weights(class_counts: Sequence[int], beta: float) -> Tensor:
    """Return w ∝ (1 − β) / (1 − β^n), scaled so that the mean is 1 (Cui et al., 2019)."""
    counts = torch.tensor(class_counts, dtype=torch.float64)
    return summing_to_their_number((1 - beta) / (1 - beta**counts))


@validate_call
def focal(
    num_classes: PositiveInt,
    gamma: Exponent = 2,
    weights: Sequence[Weight] | None = None,
    normalize: Normalize = "count",
    deferred: Fraction = 0,
    class_counts: Sequence[NonNegativeInt] = (),
    beta: Fraction = 0,
) -> AdjustedCrossEntropy:
    """Return the focal loss, −w_y (1 − p_y)^γ log p_y: images that are right already count less.

    Lin et al., 2017, "Focal loss for dense object detection", equations 4 and 5, with softmax, as
    in Cao et al.'s code, where Lin et al. have a sigmoid for every label; ``weights`` is its α. A
    weight stands before the loss, not within the probability. With β the weights are those of
    `class_balanced` (Cui et al., 2019).

    Raises:
        ConfigError: There are more or fewer weights than labels, or weights as well as β.
    """
    if weights is not None:
        check_number(weights, num_classes)
    if weights and beta:
        raise ConfigError("loss.weights, loss.beta: give one of them")
    by_label = torch.tensor(weights or [1.0] * num_classes)
    if beta:
        by_label = effective_weights(class_counts, beta)
    return AdjustedCrossEntropy(
        num_classes, weights=by_label, gamma=gamma, normalize=normalize, deferred=deferred
    )


@validate_call
def class_balanced(
    class_counts: Counts,
    beta: Fraction = 0.9999,
    normalize: Normalize = "count",
    deferred: Fraction = 0,
) -> AdjustedCrossEntropy:
    """Return cross-entropy with w ∝ (1 − β) / (1 − β^n), one over the effective number of images.

    Cui et al., 2019, "Class-balanced loss based on effective number of samples"; β = 0 is plain.
    Deferred, it is the re-weighting of Cao et al.'s code; their paper has w ∝ 1 / n.
    """
    weights = effective_weights(class_counts, beta)
    return AdjustedCrossEntropy(
        len(class_counts), weights=weights, normalize=normalize, deferred=deferred
    )


@validate_call
def inverse_frequency(
    class_counts: Counts,
    power: Exponent = 1,
    normalize: Normalize = "count",
    deferred: Fraction = 0,
) -> AdjustedCrossEntropy:
    """Return cross-entropy with w ∝ n^−power, scaled so that the mean is 1.

    A power of 1 is the usual re-weighting and ½ its smoothed form, as in SubpopBench (Yang et al.,
    2023); 0 is plain.
    """
    weights = summing_to_their_number(frequencies(class_counts) ** -power)
    return AdjustedCrossEntropy(
        len(class_counts), weights=weights, normalize=normalize, deferred=deferred
    )


@validate_call
def ldam(
    class_counts: Counts,
    head: str | None,
    max_margin: Exponent = 0.5,
    scale: Weight = 30,
    beta: Fraction = 0,
    normalize: Normalize = "count",
    deferred: Fraction = 0,
) -> AdjustedCrossEntropy:
    """Return the label-distribution-aware margin loss, −w_y log softmax(s (cos − m_y 1_y))_y.

    Cao et al., 2019, "Learning imbalanced datasets with label-distribution-aware margin loss":
    m ∝ n^−¼, the largest being ``max_margin``, is taken from the own label's cosine, and s is
    ``scale``, by which the model has multiplied its cosines. With ``beta`` the loss is weighted as
    in `class_balanced`, once the fraction ``deferred`` of training is done; the margins hold from
    the beginning.

    Raises:
        ConfigError: The model's last layer gives no cosines.
    """
    if head != "cosine":
        raise ConfigError(f"model.head: ldam needs cosine, which bounds the logits, got {head}")
    margins = frequencies(class_counts) ** -0.25
    return AdjustedCrossEntropy(
        len(class_counts),
        weights=effective_weights(class_counts, beta),
        margins=scale * max_margin * margins / margins.max(),
        normalize=normalize,
        deferred=deferred,
        kept=("margins",),
    )


@validate_call
def vs(
    class_counts: Counts, gamma: Exponent = 0.3, tau: Exponent = 1, deferred: Fraction = 0
) -> AdjustedCrossEntropy:
    """Return the vector-scaling loss, −log softmax(Δ ⊙ z + ι)_y, Δ = (n / n_max)^γ, ι = τ log π.

    Kini et al., 2021, "Label-imbalanced and group-sensitive classification under
    overparameterization"; π is each label's part of the images. With τ = 0, class-dependent
    temperatures, Ye et al., 2020, "Identifying and compensating for feature deviation in imbalanced
    deep learning"; with γ = 0, logit adjustment, Menon et al., 2021, "Long-tail learning via logit
    adjustment"; with γ = 0 and τ = 1, balanced softmax, Ren et al., 2020, "Balanced meta-softmax
    for long-tailed visual recognition", whose log n differs by a constant, which softmax ignores.
    """
    parts = frequencies(class_counts)
    return AdjustedCrossEntropy(
        len(class_counts),
        scales=(parts / parts.max()) ** gamma,
        offsets=tau * parts.log(),
        deferred=deferred,
    )


@validate_call
def label_aware_smoothing(
    class_counts: Counts, most: Smoothing = 0.3, least: Smoothing = 0, deferred: Fraction = 0
) -> AdjustedCrossEntropy:
    """Return cross-entropy whose target is smoothed the more, the more images a label has.

    Zhong et al., 2021, "Improving calibration for long-tailed recognition", in its concave form:
    ε = least + (most − least) sin(π/2 · (n − n_min) / (n_max − n_min)). As in PyTorch, ε is spread
    over all labels, the own one included.

    Raises:
        ConfigError: ``most`` is below ``least``.
    """
    if most < least:
        raise ConfigError(f"loss.most: must be at least loss.least, {least}, got {most}")
    counts = torch.tensor(class_counts, dtype=torch.float64)
    span = (counts.max() - counts.min()).clamp(min=1)
    rise = ((counts - counts.min()) / span * pi / 2).sin()
    return AdjustedCrossEntropy(
        len(class_counts), smoothing=least + (most - least) * rise, deferred=deferred
    )
