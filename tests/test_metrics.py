"""Metrics against scikit-learn's, and against batches worked out by hand."""

import math

import pytest
import torch
from conftest import composed
from sklearn import metrics as sklearn
from torch.nn import functional

from mnist_imbalance.config import build_part, parts_of
from mnist_imbalance.methods.metrics import (
    auroc,
    balanced_accuracy,
    ece,
    g_mean,
    nll,
    part,
    worst_label,
)

Batch = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def scored() -> Batch:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (500,), generator=random)
    return torch.randn(500, 4, generator=random) + functional.one_hot(labels, 4), labels


def test_they_are_scikit_learns(scored: Batch) -> None:
    logits, labels = scored
    predicted, chances = logits.argmax(dim=1), logits.softmax(dim=1)
    recalls = sklearn.recall_score(labels, predicted, average=None)
    expected = {
        balanced_accuracy: sklearn.balanced_accuracy_score(labels, predicted),
        worst_label: min(recalls),
        g_mean: math.prod(recalls) ** 0.25,
        auroc: sklearn.roc_auc_score(labels, chances, multi_class="ovr"),
        nll: sklearn.log_loss(labels, logits.double().softmax(dim=1)),
    }
    for metric, value in expected.items():
        assert metric(logits, labels).item() == pytest.approx(value, abs=1e-5)


def test_a_label_without_images_is_left_out() -> None:
    logits = torch.tensor([[3.0, 0, 1], [2, 1, 1], [0, 2, 1], [1, 3, 1]])
    assert auroc(logits, torch.tensor([0, 0, 1, 1])).item() == 1


def test_calibration_worked_out_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]]))
    labels = torch.tensor([0, 1, 1, 1])
    assert ece(logits, labels).item() == pytest.approx((0.4 + 0.3) / 2, abs=1e-6)
    assert ece(logits, labels, minority=[0], of="minority").item() == pytest.approx(0.1, abs=1e-6)
    assert part(logits, labels, [0], "majority")[1].tolist() == [1, 1, 1]
    assert math.isnan(nll(logits, labels, minority=[], of="minority").item())


def test_every_metric_has_its_word(scored: Batch) -> None:
    config = composed("metrics=[labels,calibration,auroc,mcc]")
    parts = parts_of(config, "metrics", {"num_classes": 4, "minority": [0, 1]})
    assert len(parts) == 11
    for name, values in parts.items():
        assert math.isfinite(float(build_part(values, name)(*scored)))
