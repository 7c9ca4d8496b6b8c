"""Steps after training, on a model that is trained on real images."""

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import composed
from pydantic import ValidationError
from test_golden import trained
from torch import Tensor, nn

from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.data.samplers import by_frequency
from mnist_imbalance.data.seeds import generator
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.methods import posthoc
from mnist_imbalance.methods.losses import frequencies
from mnist_imbalance.methods.metrics import balanced_accuracy
from mnist_imbalance.methods.posthoc import STRENGTHS, features_of, last_layer, logits_of
from mnist_imbalance.models.lstm import RowLSTM
from mnist_imbalance.training.run import adjust


@pytest.fixture
def run() -> tuple[nn.Module, MNISTData]:
    model, data = trained()
    return copy.deepcopy(model), data


def imagined(logits: Tensor, labels: Tensor) -> Any:
    """Data whose validation images are the logits of ``nn.Identity()``."""
    return SimpleNamespace(val=(255 * logits, labels))


def test_the_temperature_of_guo_2017_is_found() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=random)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=random).flatten()
    found: Any = posthoc.temperature(nn.Identity(), imagined(3 * logits, labels))
    assert 1 / found.scales.item() == pytest.approx(3, rel=0.05)


def test_the_strength_is_the_best_on_validation_images(run: tuple[nn.Module, MNISTData]) -> None:
    model, data = run
    images, labels = data.val
    log_prior = frequencies(data.class_counts).log().float()
    adjusted, logits = posthoc.logit_adjustment(model, data), logits_of(model, images)
    scores = [balanced_accuracy(logits - tau * log_prior, labels).item() for tau in STRENGTHS]
    near = max(scores) - 1e-6
    best = next(tau for tau, score in zip(STRENGTHS, scores, strict=True) if score > near)
    assert max(scores) > scores[0]
    torch.testing.assert_close(adjusted.offsets, -best * log_prior)
    assert adjusted.summary.startswith(f"τ={best:g}")
    assert posthoc.logit_adjustment(model, data, tau=1).summary == "τ=1"
    ended = posthoc.logit_adjustment(model, data, tau=[0, 0.01])
    assert ended.summary in {"τ=0", "τ=0.01, the largest of those tried"}
    with pytest.raises(ValidationError, match="tau"):
        posthoc.logit_adjustment(model, data, tau=-1)


def test_tau_normalization_of_kang_2020(run: tuple[nn.Module, MNISTData]) -> None:
    layer = last_layer(posthoc.tau_normalized(*run, keep_bias=False, tau=1))
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(10))
    assert not layer.bias.any()
    kept = posthoc.tau_normalized(*run, keep_bias=True, tau=1)
    assert torch.equal(last_layer(kept).bias, last_layer(run[0]).bias)
    grid = [step / 10 for step in range(21)]  # of the authors' tau_norm.py
    assert composed("posthoc=tau_normalized").posthoc.tau == grid


def test_a_stated_prior_replaces_the_one_of_training(run: tuple[nn.Module, MNISTData]) -> None:
    model, data = run
    prior = [float(label + 1) for label in range(10)]
    images, own = data.val[0][:50], frequencies(data.class_counts).float()
    expected = logits_of(model, images).softmax(dim=1) * torch.tensor(prior) / 55 / own
    shifted = logits_of(posthoc.label_shift(model, data, prior=prior), images).softmax(dim=1)
    torch.testing.assert_close(shifted, expected / expected.sum(dim=1, keepdim=True))
    equal = posthoc.label_shift(model, data, prior=None).offsets
    torch.testing.assert_close(equal - equal[0], own[0].log() - own.log())
    with pytest.raises(ConfigError, match=r"^posthoc: The size of tensor a \(2\) must match"):
        adjust(model, data, lambda *run: posthoc.label_shift(*run, prior=[1, 2]))


def test_offsets_lie_midway_and_find_the_best() -> None:
    logits = torch.tensor([[5.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    data = imagined(logits, torch.tensor([0, 0, 1, 1]))
    offsets = posthoc.thresholds(nn.Identity(), data).offsets
    assert (offsets[1] - offsets[0]).item() == 2.5
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    labels = (logits + torch.tensor([1.0, 0.0, -1.0])).argmax(dim=1)
    found = posthoc.thresholds(nn.Identity(), imagined(logits, labels))
    assert balanced_accuracy(found(logits), labels) == 1


def test_a_second_stage_is_its_authors(run: tuple[nn.Module, MNISTData]) -> None:
    """The loop of MiSLAS's train_stage2.py, three steps."""
    model, data = run
    images, labels = data.train
    before = {name: values.clone() for name, values in model.state_dict().items()}
    order = by_frequency(labels, power=0, images=96, generator=generator("balanced draws", 5))
    layer = copy.deepcopy(last_layer(model))
    features, scales = features_of(model, last_layer(model), images), nn.Parameter(torch.ones(10))
    counts = torch.tensor(data.class_counts)
    rise = (counts - counts.min()) * math.pi / (2 * (counts.max() - counts.min()))
    values = [*layer.parameters(), scales]
    momenta = [torch.zeros_like(value) for value in values]
    for step, chosen in enumerate(order.split(32)):
        log_p = (layer(features[chosen]) * scales).log_softmax(dim=1)
        own = -log_p.gather(1, labels[chosen].unsqueeze(1)).squeeze(1)
        spread = 0.3 * rise.sin()[labels[chosen]]
        loss = ((1 - spread) * own - spread * log_p.mean(dim=1)).mean()
        gradients = torch.autograd.grad(loss, values)
        rate = 0.1 * (1 + math.cos(math.pi * step / 3)) / 2
        with torch.no_grad():
            for value, momentum, gradient in zip(values, momenta, gradients, strict=True):
                momentum.mul_(0.9).add_(gradient + 0.01 * value)
                value.sub_((1.0 if value is scales else 0.5) * rate * momentum)
    keys: dict[str, Any] = {"most": 0.3, "least": 0, "lr_factor": 0.5, "weight_decay": 0.01}
    keys |= {"seed": 5, "steps": 3, "lr": 0.1, "batch_size": 32}
    adjusted: Any = adjust(model, data, lambda *run: posthoc.mislas(*run, **keys))
    torch.testing.assert_close(adjusted.scales, scales.detach())
    for found, value in zip(last_layer(adjusted.model).parameters(), values, strict=False):
        torch.testing.assert_close(found, value)
    for name, found in model.state_dict().items():  # the trained model stays as it was
        assert torch.equal(found, before[name])
    after = adjusted.model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"11.weight", "11.bias"}


def test_a_second_stage_transforms_the_images_it_draws(run: tuple[nn.Module, MNISTData]) -> None:
    model, data = run
    turned, augmented, flipped = copy.copy(data), copy.copy(data), copy.copy(data)
    turned.transforms = [lambda image: image.flip(2)]
    augmented.augment = lambda images, generator: images.flip(3)
    flipped.train = (data.train[0].flip(3), data.train[1])

    def weights(data: MNISTData, redrawn: bool) -> Tensor:
        keys: dict[str, Any] = {"seed": 0, "steps": 3, "lr": 0.1, "batch_size": 32}
        adjusted = posthoc.crt(copy.deepcopy(model), data, **keys, transforms=redrawn)
        return last_layer(adjusted).weight

    torch.testing.assert_close(weights(turned, True), weights(flipped, True))
    torch.testing.assert_close(weights(augmented, True), weights(flipped, True))
    assert not torch.equal(weights(turned, True), weights(data, True))
    assert torch.equal(weights(turned, False), weights(data, True))


def test_mistakes_are_named(run: tuple[nn.Module, MNISTData]) -> None:
    keys: dict[str, Any] = {"seed": 0, "steps": 50, "batch_size": 8}
    with pytest.raises(ConfigError, match=r"^posthoc\.lr: the loss is (nan|inf); try a smaller"):
        posthoc.crt(*run, **keys, lr=1e38)
    with pytest.raises(ConfigError, match=r"^model: its last linear layer must give the logits \("):
        posthoc.crt(RowLSTM(10), run[1], **keys, lr=1)
    with pytest.raises(ConfigError, match=r"^model: has no linear layer"):
        last_layer(nn.Flatten())
    with pytest.raises(ValidationError, match=r"step\n.*Unexpected keyword argument"):
        posthoc.lws(*run, **keys | {"lr": 1, "step": 5})
