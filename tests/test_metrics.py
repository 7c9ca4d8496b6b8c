"""Metrics against scikit-learn's, and against batches worked out by hand."""

import math

import pytest
import torch
from conftest import composed
from sklearn import metrics as theirs
from torch.nn import functional

from mnist_imbalance.config import build
from mnist_imbalance.methods.metrics import (
    auroc,
    balanced_accuracy,
    ece,
    g_mean,
    nll,
    part,
    worst_label,
)


@pytest.fixture
def scored() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (500,), generator=random)
    logits = torch.randn(500, 4, generator=random) + functional.one_hot(labels, 4)
    return logits, labels


def test_they_are_scikit_learns(scored: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = scored
    predicted, chances = logits.argmax(dim=1), logits.softmax(dim=1)
    expected = {
        balanced_accuracy: theirs.balanced_accuracy_score(labels, predicted),
        worst_label: min(theirs.recall_score(labels, predicted, average=None)),
        auroc: theirs.roc_auc_score(labels, chances, multi_class="ovr"),
        nll: theirs.log_loss(labels, logits.double().softmax(dim=1)),
    }
    for ours, value in expected.items():
        assert ours(logits, labels).item() == pytest.approx(value, abs=1e-5)
    recalls = theirs.recall_score(labels, predicted, average=None)
    assert g_mean(*scored).item() == pytest.approx(math.prod(recalls) ** 0.25, abs=1e-5)


def test_a_label_without_images_is_left_out() -> None:
    logits = torch.tensor([[3.0, 0, 1], [2, 1, 1], [0, 2, 1], [1, 3, 1]])
    assert auroc(logits, torch.tensor([0, 0, 1, 1])).item() == 1


def test_calibration_worked_out_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]]))
    labels = torch.tensor([0, 1, 1, 1])
    assert ece(logits, labels).item() == pytest.approx((0.4 + 0.3) / 2, abs=1e-6)
    assert ece(logits, labels, minority=[0], of="minority").item() == pytest.approx(0.1, abs=1e-6)
    rest = part(logits, labels, [0], "majority")
    assert rest[1].tolist() == [1, 1, 1]
    assert math.isnan(nll(logits, labels, minority=[], of="minority").item())


def test_every_metric_has_its_word(scored: tuple[torch.Tensor, torch.Tensor]) -> None:
    config = composed("metrics=[labels,calibration,auroc,mcc]")
    built = build(config, "metrics", {"num_classes": 4, "minority": [0, 1]})
    assert len(built) == 11
    assert all(math.isfinite(float(metric(*scored))) for metric in built.values())
