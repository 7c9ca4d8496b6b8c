"""Models, losses, mixes and metrics, against numbers worked out from their papers."""

import math
from typing import Any

import pytest
import torch
from conftest import composed
from pydantic import ValidationError
from sklearn import metrics as sklearn
from torch import Tensor, nn
from torch.nn import functional

from mnist_imbalance.config import build, build_part, parts_of
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.methods import metrics
from mnist_imbalance.methods.losses import (
    AdjustedCrossEntropy,
    MinorityWeightedCrossEntropy,
    WeightedCrossEntropy,
    class_balanced,
    focal,
    inverse_frequency,
    label_aware_smoothing,
    ldam,
    vs,
)
from mnist_imbalance.methods.mixes import Mixup, Remix
from mnist_imbalance.models import CosineLinear
from mnist_imbalance.models.cnn import LeNet5
from mnist_imbalance.models.lstm import RowLSTM
from mnist_imbalance.models.resnet import ResNet
from mnist_imbalance.training.classifier import Classifier

ONE_PERCENT = [54, 62, 55, 56, 53, 4921, 5418, 5765, 5351, 5449]
IMBALANCED = [542, 624, 546, 563, 534, 4921, 5418, 5765, 5351, 5449]


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(64, 1, 28, 28)


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(64, 10)


@pytest.fixture
def labels() -> Tensor:
    return torch.randint(0, 10, (64,))


# models


@pytest.mark.parametrize(("kind", "parameters"), [(RowLSTM, 44_042), (LeNet5, 61_706)])
def test_shapes_and_parameter_counts(kind: Any, parameters: int, images: Tensor) -> None:
    model: nn.Module = kind(10)
    assert model(images).shape == (64, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    small = kind(num_classes=4, image_shape=(3, 32, 20))
    assert small(torch.rand(2, 3, 32, 20)).shape == (2, 4)


def test_the_lstm_of_ai3607(images: Tensor) -> None:
    literal, linear = (RowLSTM(10, output_bias=-0.01, output_relu=relu) for relu in (True, False))
    linear.load_state_dict(literal.state_dict())
    assert literal(images).min() == 0 > linear(images).min()
    same(literal(images), linear(images).clamp(min=0))
    state, features = None, []
    for row in range(28):  # the feature is the last hidden unit at every row
        output, state = linear.lstm(images[:, 0, row : row + 1, :], state)
        features.append(output[:, 0, 63])
    same(linear(images), linear.head(torch.stack(features, dim=1)))
    fives, default = (RowLSTM(10, output_bias=bias).state_dict() for bias in (5, None))
    assert (fives["head.2.bias"] == 5).all()
    assert default["head.2.bias"].abs().max() <= 512**-0.5  # PyTorch's bound for 512 inputs
    with pytest.raises(ConfigError, match=r"^model\.head: cosine needs output_bias=null"):
        RowLSTM(10, head="cosine")


@pytest.mark.parametrize(
    ("depth", "shortcut", "parameters"),
    [(8, "A", 75_290), (8, "B", 78_042), (32, "A", 464_154), (32, "B", 466_906)],
)
def test_resnets_of_he_2016(depth: Any, shortcut: Any, parameters: int) -> None:
    model = ResNet(10, depth=depth, shortcut=shortcut)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    before = {name: values.clone() for name, values in model.state_dict().items()}
    Classifier(model).try_out((3, 32, 32))
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


# losses


def test_weights_and_both_divisors() -> None:
    # Label 0 has probability 1/2, label 9 has 1/4, and they weigh 3 and 1.
    logits = torch.full((2, 10), -torch.inf)
    logits[0, [0, 1]] = logits[1, [6, 7, 8, 9]] = 0
    summed, weights = 3 * math.log(2) + 1 * math.log(4), [3.0] + [1.0] * 9
    for normalize, divisor in (("weight_sum", 4), ("count", 2)):
        config = composed(
            "loss=per_label", f"loss.weights={weights}", f"loss.normalize={normalize}"
        )
        found = build(config, "loss")(logits, torch.tensor([0, 9]))
        assert found.item() == pytest.approx(summed / divisor)
    loss = MinorityWeightedCrossEntropy(7, minority=[0, 3], num_classes=4, normalize="count")
    assert loss.weights.tolist() == [7, 1, 1, 7]
    assert list(loss.state_dict()) == ["weights"]  # saved, and no parameter
    assert not list(loss.parameters())


IMAGE = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])
WORKED_OUT = [
    (focal([9] * 3)(*IMAGE), 0.045678),  # Lin 2017
    (focal([9] * 3, weights=[7, 1, 1])(*IMAGE), 0.319745),  # within p it would be 2.533708
    (vs([10, 100, 1000], gamma=0, tau=1)(*IMAGE), 2.902098),  # Ren 2020 and Menon 2021
    (vs([70, 700, 7000], gamma=0, tau=1)(*IMAGE), 2.902098),
    (label_aware_smoothing([100, 550, 1000], most=0.3, least=0).smoothing, [0, 0.212132, 0.3]),
    (
        class_balanced(IMBALANCED).weights,  # Cui 2019
        [1.8253, 1.5919, 1.8123, 1.7591, 1.8519, 0.2478, 0.2302, 0.2198, 0.2324, 0.2292],
    ),
    (
        ldam(IMBALANCED, "cosine", scale=1).margins,  # Cao 2019
        [0.4981, 0.4809, 0.4972, 0.4934, 0.5, 0.2870, 0.2802, 0.2758, 0.2810, 0.2798],
    ),
    (
        vs(IMBALANCED).scales,  # Kini 2021
        [0.4920, 0.5132, 0.4931, 0.4976, 0.4898, 0.9536, 0.9815, 1, 0.9779, 0.9832],
    ),
]


@pytest.mark.parametrize(("found", "expected"), WORKED_OUT)
def test_numbers_worked_out_by_hand(found: Tensor, expected: Any) -> None:
    assert found.tolist() == pytest.approx(expected, abs=1e-6 if found.ndim == 0 else 6e-5)


def test_choices_of_losses_are_their_authors(logits: Tensor, labels: Tensor) -> None:
    def built(choice: str, *overrides: str) -> Any:
        config = composed(f"loss={choice}", *overrides)
        return build(config, "loss", {"class_counts": ONE_PERCENT, "head": config.model.head})

    plain = functional.cross_entropy
    effective = (1 - 0.9999) / (1 - 0.9999 ** torch.tensor(ONE_PERCENT, dtype=torch.float64))
    weights = (effective / effective.sum() * 10).float()
    deferred = built("ce_drw")
    same(deferred(logits, labels), plain(logits, labels))
    deferred.start_epoch(0.8)
    same(deferred(logits, labels), plain(logits, labels, weight=weights))
    p = logits.softmax(dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    expected = (weights[labels] * (1 - p) ** 2 * -p.log()).mean()
    same(built("class_balanced_focal")(logits, labels), expected)

    margins = 1 / torch.tensor(ONE_PERCENT) ** 0.25
    margins = functional.one_hot(labels, 10) * margins * (0.5 / margins.max())
    cosines = CosineLinear(10, 10)(logits)  # of a model, times 30
    deferred = built("ldam_drw", "model.head=cosine")
    same(deferred(cosines, labels), plain(cosines - 30 * margins, labels))
    deferred.start_epoch(0.8)
    same(deferred(cosines, labels), plain(cosines - 30 * margins, labels, weight=weights))
    equal = label_aware_smoothing(IMBALANCED, most=0.2, least=0.2)(logits, labels)
    same(equal, plain(logits, labels, label_smoothing=0.2))


@pytest.mark.parametrize(
    "loss",
    [
        focal(IMBALANCED, gamma=0),
        class_balanced(IMBALANCED, beta=0),
        inverse_frequency(IMBALANCED, power=0),
        vs(IMBALANCED, gamma=0, tau=0),
        ldam(IMBALANCED, "cosine", max_margin=0),
        label_aware_smoothing(IMBALANCED, most=0, least=0),
        vs(IMBALANCED, deferred=0.5),
    ],
)
def test_neutral_numbers_train_as_plain_cross_entropy_to_the_bit(
    logits: Tensor, labels: Tensor, loss: AdjustedCrossEntropy
) -> None:
    [found] = torch.autograd.grad(loss(logits.requires_grad_(), labels), logits)
    [plain] = torch.autograd.grad(functional.cross_entropy(logits, labels), logits)
    assert torch.equal(found, plain)


def test_impossible_losses_are_named() -> None:
    with pytest.raises(KeyError, match="margin"):
        AdjustedCrossEntropy(10, margin=1.0)
    with pytest.raises(ConfigError, match=r"^model\.head: ldam needs cosine"):
        ldam(IMBALANCED, "linear")
    with pytest.raises(ValidationError, match="class_counts"):
        vs(class_counts=[0, 100, 1000])
    with pytest.raises(ValidationError, match=r"power\n.*Extra inputs are not permitted"):
        class_balanced(IMBALANCED, **{"power": 1})  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="finite"):
        WeightedCrossEntropy([1.0, math.inf])


# mixes


def test_mixup_of_zhang_2018(images: Tensor) -> None:
    numbers = torch.arange(64)  # as labels: which image is mixed with which
    mixed, first, second, share = Mixup(alpha=1)(images, numbers)
    assert torch.equal(first, numbers)
    assert torch.equal(second.sort().values, numbers)
    assert (second != numbers).sum() > 50
    same(mixed, share * images + (1 - share) * images[second])
    for alpha in (0.01, 1.0, 8.0):
        shares = Mixup(alpha).shares.sample(torch.Size([4000]))
        assert shares.min() >= 0 and shares.max() <= 1
        assert shares.mean() == pytest.approx(0.5, abs=0.03)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


@pytest.mark.parametrize("tau", [0.5, 0.2])
def test_remix_of_chou_2020(images: Tensor, tau: float) -> None:
    """Section 3, worked out by hand for every pair of labels."""
    labels, seen = torch.randint(0, 4, (64,)), set()
    mix = Remix([300, 100, 99, 30], alpha=1, kappa=3, tau=tau)
    far_more = {(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)}
    for _ in range(40):
        state = torch.get_rng_state()
        mixed, first, second, share = mix(images, labels)
        torch.set_rng_state(state)
        same_images, own, others, same_share = Mixup(1)(images, labels)
        assert torch.equal(mixed, same_images) and share == same_share
        columns = (labels.tolist() for labels in (own, others, first, second))
        for i, j, *found in zip(*columns, strict=True):
            if share < tau and (i, j) in far_more:  # the first label's share is 0
                assert found == [j, j]
            elif 1 - share < tau and (j, i) in far_more:  # it is 1
                assert found == [i, i]
            else:
                assert found == [i, j]
            seen.add((i, j))
    assert len(seen) == 16


# metrics


def test_metrics_are_scikit_learns(logits: Tensor, labels: Tensor) -> None:
    logits = logits + functional.one_hot(labels, 10)
    predicted, p = logits.argmax(dim=1), logits.double().softmax(dim=1)
    recalls = sklearn.recall_score(labels, predicted, average=None)
    expected = {
        "balanced_accuracy": sklearn.balanced_accuracy_score(labels, predicted),
        "worst_label": min(recalls),
        "g_mean": math.prod(recalls) ** 0.1,
        "auroc": sklearn.roc_auc_score(labels, p, multi_class="ovr"),
        "nll": sklearn.log_loss(labels, p),
        "mcc": sklearn.matthews_corrcoef(labels, predicted),
    }
    config = composed("metrics=[labels,calibration,auroc,mcc]")
    parts = parts_of(config, "metrics", {"num_classes": 10, "minority": [0, 1]})
    found = {name: float(build_part(part, name)(logits, labels)) for name, part in parts.items()}
    assert len(found) == 11 and all(map(math.isfinite, found.values()))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_metrics_worked_out_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]]))
    labels = torch.tensor([0, 1, 1, 1])
    assert metrics.ece(logits, labels).item() == pytest.approx((0.4 + 0.3) / 2, abs=1e-6)
    own = metrics.ece(logits, labels, minority=[0], of="minority")
    assert own.item() == pytest.approx(0.1, abs=1e-6)
    assert metrics.select_group(logits, labels, [0], "majority")[1].tolist() == [1, 1, 1]
    for metric in (metrics.ece, metrics.nll):
        assert metric(logits, labels, minority=[], of="minority").isnan()
    without_label = torch.tensor([[3.0, 0, 1], [2, 1, 1], [0, 2, 1], [1, 3, 1]])
    assert metrics.auroc(without_label, torch.tensor([0, 0, 1, 1])).item() == 1
    assert metrics.auroc(without_label, torch.zeros(4)).isnan()
