"""Models, losses, mixes and metrics, against numbers worked out from their papers."""

import math
from functools import partial
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
from mnist_imbalance.methods import losses, metrics
from mnist_imbalance.methods.mixes import Mixup, Remix
from mnist_imbalance.models import CosineLinear
from mnist_imbalance.models.cnn import LeNet5
from mnist_imbalance.models.lstm import RowLSTM
from mnist_imbalance.models.resnet import ResNet
from mnist_imbalance.training.classifier import Classifier

ONE_PERCENT = [54, 62, 55, 56, 53, 4921, 5418, 5765, 5351, 5449]
IMBALANCED = [542, 624, 546, 563, 534, 4921, 5418, 5765, 5351, 5449]


RANDOM = torch.Generator().manual_seed(0)
IMAGES = torch.rand(64, 1, 28, 28, generator=RANDOM)
LOGITS = torch.randn(64, 10, generator=RANDOM)
LABELS = torch.randint(0, 10, (64,), generator=RANDOM)
same = torch.testing.assert_close


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# models


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (RowLSTM, 44_042),
        (LeNet5, 61_706),
        (ResNet, 75_290),
        (partial(ResNet, shortcut="B"), 78_042),
        (partial(ResNet, depth=32), 464_154),
        (partial(ResNet, depth=32, shortcut="B"), 466_906),
    ],
)
def test_models_are_their_authors_and_take_any_shape(kind: Any, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in kind(10).parameters()) == parameters
    model: nn.Module = kind(num_classes=4, image_shape=(3, 32, 20))
    before = {name: values.clone() for name, values in model.state_dict().items()}
    Classifier(model).try_out((3, 32, 20))
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert model(torch.rand(2, 3, 32, 20)).shape == (2, 4)


def test_the_lstm_of_ai3607() -> None:
    literal, linear = (RowLSTM(10, output_bias=-0.01, output_relu=relu) for relu in (True, False))
    linear.load_state_dict(literal.state_dict())
    assert literal(IMAGES).min() == 0 > linear(IMAGES).min()
    same(literal(IMAGES), linear(IMAGES).clamp(min=0))
    state, features = None, []
    for row in range(28):  # the feature is the last hidden unit at every row
        output, state = linear.lstm(IMAGES[:, 0, row : row + 1, :], state)
        features.append(output[:, 0, 63])
    same(linear(IMAGES), linear.head(torch.stack(features, dim=1)))
    fives, default = (RowLSTM(10, output_bias=bias).state_dict() for bias in (5, None))
    assert (fives["head.2.bias"] == 5).all()
    assert default["head.2.bias"].abs().max() <= 512**-0.5  # PyTorch's bound for 512 inputs
    with pytest.raises(ConfigError, match=r"^model\.head: cosine needs output_bias=null"):
        RowLSTM(10, head="cosine")


# losses


def test_weights_and_both_divisors() -> None:
    # Label 0 has probability 1/2, label 9 has 1/4, and they weigh 3 and 1.
    logits = torch.full((2, 10), -torch.inf)
    logits[0, [0, 1]] = logits[1, [6, 7, 8, 9]] = 0
    summed, weights = 3 * math.log(2) + 1 * math.log(4), [3.0] + [1.0] * 9
    for normalize, divisor in (("weight_sum", 4), ("count", 2)):
        keys = (f"loss.weights={weights}", f"loss.normalize={normalize}")
        found = build(composed("loss=per_label", *keys), "loss")(logits, torch.tensor([0, 9]))
        assert found.item() == pytest.approx(summed / divisor)
    loss = losses.MinorityWeightedCrossEntropy(7, minority=[0, 3], num_classes=4, normalize="count")
    assert loss.weights.tolist() == [7, 1, 1, 7]
    assert list(loss.state_dict()) == ["weights"]  # saved, and no parameter
    assert not list(loss.parameters())


IMAGE = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])
WORKED_OUT = [
    (losses.focal([9] * 3, weights=[7, 1, 1])(*IMAGE), 0.319745),  # within p it would be 2.533708
    (losses.vs([10, 100, 1000], gamma=0, tau=1)(*IMAGE), 2.902098),  # Ren 2020 and Menon 2021
    (losses.vs([70, 700, 7000], gamma=0, tau=1)(*IMAGE), 2.902098),
    (losses.label_aware_smoothing([2, 11, 20], most=0.3, least=0).smoothing, [0, 0.212132, 0.3]),
    (
        losses.vs(IMBALANCED).scales,  # Kini 2021
        [0.4920, 0.5132, 0.4931, 0.4976, 0.4898, 0.9536, 0.9815, 1, 0.9779, 0.9832],
    ),
]


@pytest.mark.parametrize(("found", "expected"), WORKED_OUT)
def test_numbers_worked_out_by_hand(found: Tensor, expected: Any) -> None:
    assert found.tolist() == pytest.approx(expected, abs=1e-6 if found.ndim == 0 else 6e-5)


def test_choices_of_losses_are_their_authors() -> None:
    def built(choice: str, *overrides: str) -> Any:
        config = composed(f"loss={choice}", *overrides)
        return build(config, "loss", {"class_counts": ONE_PERCENT, "head": config.model.head})

    logits, labels = LOGITS, LABELS
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
    equal = losses.label_aware_smoothing(IMBALANCED, most=0.2, least=0.2)(logits, labels)
    same(equal, plain(logits, labels, label_smoothing=0.2))


@pytest.mark.parametrize(
    "loss",
    [
        losses.focal(IMBALANCED, gamma=0),
        losses.class_balanced(IMBALANCED, beta=0),
        losses.inverse_frequency(IMBALANCED, power=0),
        losses.vs(IMBALANCED, gamma=0, tau=0),
        losses.ldam(IMBALANCED, "cosine", max_margin=0),
        losses.label_aware_smoothing(IMBALANCED, most=0, least=0),
        losses.vs(IMBALANCED, deferred=0.5),
    ],
)
def test_neutral_numbers_change_nothing(loss: nn.Module) -> None:
    logits = LOGITS.clone().requires_grad_()
    [found] = torch.autograd.grad(loss(logits, LABELS), logits)
    [plain] = torch.autograd.grad(functional.cross_entropy(logits, LABELS), logits)
    assert torch.equal(found, plain)


def test_impossible_losses_are_named() -> None:
    with pytest.raises(ValidationError, match=r"margin\n.*Unexpected keyword argument"):
        losses.AdjustedCrossEntropy(10, **{"margin": 1.0})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^model\.head: ldam needs cosine"):
        losses.ldam(IMBALANCED, "linear")
    with pytest.raises(ValidationError, match="class_counts"):
        losses.vs(class_counts=[0, 100, 1000])
    with pytest.raises(ValidationError, match=r"power\n.*Unexpected keyword argument"):
        losses.class_balanced(IMBALANCED, power=1)
    with pytest.raises(ValidationError, match="finite"):
        losses.WeightedCrossEntropy([1.0, math.inf])


# mixes


def test_mixup_of_zhang_2018() -> None:
    numbers = torch.arange(64)  # as labels: which image is mixed with which
    mixed, first, second, share = Mixup(alpha=1)(IMAGES, numbers)
    assert torch.equal(first, numbers)
    assert torch.equal(second.sort().values, numbers)
    assert (second != numbers).sum() > 50
    same(mixed, share * IMAGES + (1 - share) * IMAGES[second])
    for alpha in (0.01, 1.0, 8.0):
        shares = Mixup(alpha).shares.sample(torch.Size([4000]))
        assert shares.min() >= 0 and shares.max() <= 1
        assert shares.mean() == pytest.approx(0.5, abs=0.03)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


@pytest.mark.parametrize("tau", [0.5, 0.2])
def test_remix_of_chou_2020(tau: float) -> None:
    """Section 3, worked out by hand for every pair of labels."""
    labels, seen = torch.randint(0, 4, (64,)), set()
    mix = Remix([300, 100, 99, 30], alpha=1, kappa=3, tau=tau)
    far_more = {(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)}
    for _ in range(40):
        state = torch.get_rng_state()
        mixed, first, second, share = mix(IMAGES, labels)
        torch.set_rng_state(state)
        same_images, own, others, same_share = Mixup(1)(IMAGES, labels)
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


def test_metrics_are_scikit_learns() -> None:
    labels, logits = LABELS, LOGITS + functional.one_hot(LABELS, 10)
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
