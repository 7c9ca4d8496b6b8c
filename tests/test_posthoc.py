"""Steps after training, on a model that is trained on real images."""

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import composed
from pydantic import ValidationError
from test_golden_parts import trained
from torch import Tensor, nn
from torch.nn import functional

from mnist_imbalance.data.module import MNISTData
from mnist_imbalance.data.samplers import by_frequency
from mnist_imbalance.data.seeds import derive, generator
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.methods.losses import frequencies
from mnist_imbalance.methods.metrics import balanced_accuracy, part
from mnist_imbalance.methods.posthoc import (
    STRENGTHS,
    Adjusted,
    NearestMean,
    best_offsets,
    crt,
    features_of,
    label_shift,
    last_layer,
    logit_adjustment,
    logits_of,
    lws,
    mislas,
    normalized,
    tau_normalized,
    temperature,
)
from mnist_imbalance.models.lstm import RowLSTM
from mnist_imbalance.records.identity import determining

Run = tuple[nn.Module, MNISTData]


@pytest.fixture(scope="module")
def run() -> Run:
    return trained()


def on_minority(model: nn.Module, data: MNISTData) -> float:
    images, labels = data.test
    chosen = part(logits_of(model, images), labels, data.minority, "minority")
    return balanced_accuracy(*chosen).item()


def test_adjusted_logits() -> None:
    logits = torch.tensor([[1.0, 0.0]])
    adjusted = Adjusted(nn.Identity(), "", offsets=-frequencies([90, 10]).log())(logits)
    assert (adjusted[0, 1] - adjusted[0, 0]).item() == pytest.approx(-1 + 2.197225, abs=1e-5)
    assert torch.equal(Adjusted(nn.Identity(), "")(logits), logits)


def test_the_temperature_of_guo_2017_is_found(run: Run) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=random)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=random).flatten()
    hot: Any = SimpleNamespace(val=(3 * 255 * logits, labels))
    assert 1 / temperature(nn.Identity(), hot).scales.item() == pytest.approx(3, rel=0.05)
    images, labels = run[1].val
    logits, cooled = (logits_of(model, images) for model in (run[0], temperature(*run)))
    assert functional.cross_entropy(cooled, labels) < functional.cross_entropy(logits, labels)
    assert torch.equal(cooled.argmax(dim=1), logits.argmax(dim=1))


def test_the_strength_is_the_best_on_validation_images(run: Run) -> None:
    model, data = run
    images, labels = data.val
    log_prior = frequencies(data.class_counts).log().float()
    adjusted = logit_adjustment(model, data)
    logits = logits_of(model, images)
    scores = [balanced_accuracy(logits - tau * log_prior, labels).item() for tau in STRENGTHS]
    best = next(
        tau for tau, score in zip(STRENGTHS, scores, strict=True) if score > max(scores) - 1e-6
    )
    assert max(scores) > scores[0]
    torch.testing.assert_close(adjusted.offsets, -best * log_prior)
    assert adjusted.summary.startswith(f"τ={best:g}")
    alone = logit_adjustment(model, data, tau=1)
    torch.testing.assert_close(alone.offsets, -log_prior)
    assert alone.summary == "τ=1"
    ended = logit_adjustment(model, data, tau=[0, 0.01])
    assert ended.summary in {"τ=0", "τ=0.01, the largest of those tried"}
    with pytest.raises(ValidationError, match="tau"):
        logit_adjustment(model, data, tau=-1)


def test_tau_normalization_of_kang_2020(run: Run) -> None:
    layer = last_layer(normalized(run[0], 1, keep_bias=False))
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(10))
    assert not layer.bias.any()
    grid = [step / 10 for step in range(21)]  # of the authors' tau_norm.py
    assert composed("posthoc=tau_normalized").posthoc.tau == grid
    kept = tau_normalized(*run, keep_bias=True, tau=1)
    assert torch.equal(last_layer(kept).bias, last_layer(run[0]).bias)
    assert "bias kept" in kept.summary


def test_a_stated_prior_replaces_the_one_of_training(run: Run) -> None:
    model, data = run
    prior = [float(label + 1) for label in range(10)]
    images = data.val[0][:50]
    shifted = logits_of(label_shift(model, data, prior=prior), images).softmax(dim=1)
    weights = torch.tensor(prior) / 55 / frequencies(data.class_counts).float()
    expected = logits_of(model, images).softmax(dim=1) * weights
    torch.testing.assert_close(shifted, expected / expected.sum(dim=1, keepdim=True))
    equal = label_shift(model, data, prior=None).offsets
    log_prior = -frequencies(data.class_counts).log().float()
    torch.testing.assert_close(equal - equal[0], log_prior - log_prior[0])
    with pytest.raises(ConfigError, match=r"^posthoc\.prior: must have 10 parts, got 2$"):
        label_shift(model, data, prior=[1, 2])


def test_offsets_lie_midway_and_find_the_best() -> None:
    logits = torch.tensor([[5.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    offsets = best_offsets(logits, torch.tensor([0, 0, 1, 1]))
    assert (offsets[1] - offsets[0]).item() == 2.5
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    labels = (logits + torch.tensor([1.0, 0.0, -1.0])).argmax(dim=1)
    assert balanced_accuracy(logits + best_offsets(logits, labels), labels) == 1


@pytest.mark.parametrize(("method", "changed"), [(crt, {"11.weight", "11.bias"}), (lws, set())])
def test_a_second_stage_trains_the_end_of_the_model_alone(
    run: Run, method: Callable[..., Adjusted], changed: set[str]
) -> None:
    model, data = run
    before = {name: values.clone() for name, values in model.state_dict().items()}
    first, again, other = (
        method(model, data, seed=seed, steps=200, lr=0.2, batch_size=128) for seed in (0, 0, 1)
    )
    after = first.model.state_dict()
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert {name for name in after if not torch.equal(after[name], before[name])} == changed
    states = [list(adjusted.state_dict().values()) for adjusted in (first, again, other)]
    assert all(map(torch.equal, states[0], states[1]))
    assert not all(map(torch.equal, states[0], states[2]))
    assert on_minority(first, data) > on_minority(model, data)


@pytest.mark.parametrize("method", [crt, lws, mislas])
def test_second_stages_are_their_authors(run: Run, method: Callable[..., Adjusted]) -> None:
    """The loops of classifier-balancing (cRT, LWS) and MiSLAS's train_stage2.py, three steps."""
    model, data = run
    images, labels = data.train
    order = by_frequency(labels, power=0, images=96, generator=generator("balanced draws", 5))
    layer = copy.deepcopy(last_layer(model))
    features = features_of(model, last_layer(model), images)
    scales = nn.Parameter(torch.ones(10))
    keys: dict[str, Any] = {"steps": 3, "lr": 0.1, "batch_size": 32, "weight_decay": 0.01}
    smooth = torch.zeros(10)
    if method is crt:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive("last layer", 5))
            layer.reset_parameters()
        factors, smooth, keys["smoothing"] = (1.0, 0.0), smooth + 0.2, 0.2
    elif method is lws:
        factors = (0.0, 1.0)
    else:
        counts = torch.tensor(data.class_counts)
        rise = (counts - counts.min()) * math.pi / (2 * (counts.max() - counts.min()))
        factors, smooth = (0.5, 1.0), 0.3 * rise.sin()
        keys |= {"most": 0.3, "least": 0, "lr_factor": 0.5}
    values = [*layer.parameters(), scales]
    momenta = [torch.zeros_like(value) for value in values]
    for step, chosen in enumerate(order.split(32)):
        log_p = (layer(features[chosen]) * scales).log_softmax(dim=1)
        own = -log_p.gather(1, labels[chosen].unsqueeze(1)).squeeze(1)
        spread = smooth[labels[chosen]]
        loss = ((1 - spread) * own - spread * log_p.mean(dim=1)).mean()
        gradients = torch.autograd.grad(loss, values)
        rate = 0.1 * (1 + math.cos(math.pi * step / 3)) / 2
        with torch.no_grad():
            for value, momentum, gradient in zip(values, momenta, gradients, strict=True):
                momentum.mul_(0.9).add_(gradient + 0.01 * value)
                value.sub_(factors[value is scales] * rate * momentum)
    adjusted = method(model, data, seed=5, **keys)
    torch.testing.assert_close(adjusted.scales, scales.detach())
    for found, value in zip(last_layer(adjusted.model).parameters(), values, strict=False):
        torch.testing.assert_close(found, value)


def test_a_second_stage_transforms_the_images_it_draws(run: Run) -> None:
    model, data = run
    turned, flipped = copy.copy(data), copy.copy(data)
    turned.transforms = [lambda image: image.flip(2)]
    flipped.train = (data.train[0].flip(3), data.train[1])

    def weights(data: MNISTData, redrawn: bool) -> Tensor:
        keys: dict[str, Any] = {"seed": 0, "steps": 3, "lr": 0.1, "batch_size": 32}
        return last_layer(crt(model, data, **keys, transforms=redrawn)).weight

    torch.testing.assert_close(weights(turned, True), weights(flipped, True))
    assert not torch.equal(weights(turned, True), weights(data, True))
    assert torch.equal(weights(turned, False), weights(data, True))


def test_the_nearest_mean_is_the_one_of_centred_features_of_norm_1() -> None:
    features = torch.tensor([[4.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0], [0.0, 1.0]])
    nearest = NearestMean(features, torch.tensor([0, 0, 1, 1, 1]))
    unit = functional.normalize(features - torch.tensor([1.2, 1.0]))
    means = torch.stack([unit[:2].mean(dim=0), unit[2:].mean(dim=0)])
    torch.testing.assert_close(nearest(features), -torch.cdist(unit, means).square())


def test_the_settings_of_earlier_records_have_their_hash() -> None:
    earlier = {"_partial_", "_target_", "batch_size", "lr", "steps"}
    for choice in ("crt", "lws"):
        as_before = ["posthoc.weight_decay=0", "posthoc.transforms=false"]
        values = determining(composed(f"posthoc={choice}", *as_before))
        assert {key[8:] for key in values if key.startswith("posthoc.")} == earlier


def test_mistakes_are_named(run: Run) -> None:
    keys: dict[str, Any] = {"seed": 0, "steps": 50, "batch_size": 8}
    with pytest.raises(ConfigError, match=r"^posthoc\.lr: the loss is (nan|inf); try a smaller"):
        crt(*run, **keys, lr=1e38)
    with pytest.raises(ConfigError, match=r"^model\.output_relu: must be false for posthoc=crt"):
        crt(RowLSTM(10), run[1], **keys, lr=1)
    with pytest.raises(ConfigError, match=r"^model: has no linear layer"):
        last_layer(nn.Flatten())
    with pytest.raises(ValidationError, match=r"step\n.*Extra inputs are not permitted"):
        lws(*run, **keys, lr=1, **{"step": 5})
