"""What is done after training, on real images."""

import copy
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import composed
from mnist_imbalance.load import TrainedRun, load_run
from mnist_imbalance.runs import Result, RunFolder, determining
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from mnist_imbalance import adjust, train
from mnist_imbalance.config import CONF, compose_with
from mnist_imbalance.data.samplers import by_frequency
from mnist_imbalance.data.seeds import derive, generator
from mnist_imbalance.methods.losses import frequencies
from mnist_imbalance.methods.metrics import balanced_accuracy, part
from mnist_imbalance.methods.posthoc import (
    STRENGTHS,
    Adjusted,
    NearestMean,
    best_offsets,
    best_temperature,
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
from mnist_imbalance.sweeps.batched import program

SHORT = ("data/source=debug", "trainer=cpu", "optimizer=adam", "optimizer.lr=0.003")
CNN = (*SHORT, "model=cnn", "trainer.max_epochs=15")
CHOICES = sorted({path.stem for path in (CONF / "posthoc").glob("*.yaml")} - {"none"})


def train_in(runs: Path, *overrides: str) -> Path:
    """The training command line in this process; returns the run's folder."""
    before = set(runs.rglob("result.json"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *overrides, f"runs_dir={runs}"])
        train.main()
    [new] = set(runs.rglob("result.json")) - before
    return new.parent


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of which nothing was done after training."""
    runs = tmp_path_factory.mktemp("runs")
    yield train_in(runs, *CNN)
    shutil.rmtree(runs)


@pytest.fixture(scope="module")
def run(plain: Path) -> TrainedRun:
    return load_run(plain)


@pytest.fixture
def beside(plain: Path, tmp_path: Path) -> Path:
    """A root of runs that holds a copy of the plain run."""
    root = tmp_path / "beside"
    shutil.copytree(plain, root / "any" / "place")
    return root


def result_of(folder: Path) -> Result:
    result = RunFolder(folder).result()
    assert result
    return result


def weights_in(folder: Path) -> dict[str, Tensor]:
    state = torch.load(RunFolder(folder).last_checkpoint, weights_only=True)["state_dict"]
    assert isinstance(state, dict)
    return state


def of_minority(model: nn.Module, run: TrainedRun) -> float:
    images, labels = run.data.test
    chosen = part(logits_of(model, images), labels, run.data.minority, "minority")
    return balanced_accuracy(*chosen).item()


def test_adjusted_logits() -> None:
    logits = torch.tensor([[1.0, 0.0]])
    adjusted = Adjusted(nn.Identity(), "", offsets=-frequencies([90, 10]).log())(logits)
    assert (adjusted[0, 1] - adjusted[0, 0]).item() == pytest.approx(-1 + 2.197225, abs=1e-5)
    assert torch.equal(Adjusted(nn.Identity(), "")(logits), logits)


def test_the_temperature_is_found() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=random)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=random).flatten()
    assert best_temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)


def test_the_strength_is_the_best_on_validation_images(run: TrainedRun) -> None:
    model, (images, labels) = run.classifier.model, run.data.val
    log_prior = frequencies(run.data.class_counts).log().float()
    adjusted = logit_adjustment(model, run.data)
    tau = (adjusted.offsets / -log_prior)[0].item()
    torch.testing.assert_close(adjusted.offsets, -tau * log_prior)
    reached = balanced_accuracy(logits_of(adjusted, images), labels)
    logits = logits_of(model, images)
    scores = [balanced_accuracy(logits - each * log_prior, labels) for each in STRENGTHS]
    assert reached == max(scores) > scores[0]
    assert adjusted.told.startswith(f"τ={STRENGTHS[scores.index(max(scores))]:g}")


def test_the_strength_can_be_asked_for_and_an_end_of_the_grid_is_said(run: TrainedRun) -> None:
    model, data = run.classifier.model, run.data
    log_prior = frequencies(data.class_counts).log().float()
    asked = logit_adjustment(model, data, tau=1)
    torch.testing.assert_close(asked.offsets, -log_prior)
    assert asked.told == "τ=1"
    ended = logit_adjustment(model, data, tau=[0, 0.01])
    assert ended.told in {"τ=0", "τ=0.01, the largest of those tried"}
    with pytest.raises(ValidationError, match="tau"):
        logit_adjustment(model, data, tau=-1)


def test_norms_are_alike_at_full_strength(run: TrainedRun) -> None:
    layer = last_layer(normalized(run.classifier.model, 1, keep_bias=False))
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(10))
    assert not layer.bias.any()
    grid = [step / 10 for step in range(21)]  # of the authors' tau_norm.py
    assert composed("posthoc=tau_normalized").posthoc.tau == grid
    chosen = tau_normalized(run.classifier.model, run.data, keep_bias=False, tau=grid)
    assert not last_layer(chosen).bias.any()
    kept = tau_normalized(run.classifier.model, run.data, keep_bias=True, tau=1)
    before = last_layer(run.classifier.model)
    assert torch.equal(last_layer(kept).bias, before.bias)
    assert "bias kept" in kept.told


def test_a_temperature_makes_the_validation_labels_likelier(run: TrainedRun) -> None:
    model, (images, labels) = run.classifier.model, run.data.val
    logits, cooled = (logits_of(each, images) for each in (model, temperature(model, run.data)))
    assert functional.cross_entropy(cooled, labels) < functional.cross_entropy(logits, labels)
    assert torch.equal(cooled.argmax(dim=1), logits.argmax(dim=1))


def test_the_last_layer_alone_is_trained_again(run: TrainedRun) -> None:
    model, data = run.classifier.model, run.data
    before = {name: values.clone() for name, values in model.state_dict().items()}
    first, again, other = (
        crt(model, data, seed=seed, steps=200, lr=0.2, batch_size=128) for seed in (0, 0, 1)
    )
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    after = first.model.state_dict()
    changed = {name for name, values in after.items() if not torch.equal(values, before[name])}
    assert changed == {"11.weight", "11.bias"}
    for same, values in zip(again.state_dict().values(), first.state_dict().values(), strict=True):
        assert torch.equal(same, values)
    assert not torch.equal(last_layer(other).weight, last_layer(first).weight)
    assert of_minority(first, run) > of_minority(model, run) + 0.05


def test_the_scales_alone_are_learnt(run: TrainedRun) -> None:
    model, data = run.classifier.model, run.data
    first, again, other = (
        lws(model, data, seed=seed, steps=200, lr=0.2, batch_size=128) for seed in (0, 0, 1)
    )
    before = model.state_dict()
    assert before.keys() == first.model.state_dict().keys()
    for name, values in first.model.state_dict().items():
        assert torch.equal(values, before[name])
    assert first.scales.shape == (10,)
    assert (first.scales != 1).all()
    assert torch.equal(first.scales, again.scales)
    assert not torch.equal(first.scales, other.scales)
    assert of_minority(first, run) > of_minority(model, run)


@pytest.mark.parametrize("method", [crt, lws, mislas], ids=["crt", "lws", "mislas"])
def test_second_stages_are_their_authors(run: TrainedRun, method: Callable[..., Adjusted]) -> None:
    """The loops of classifier-balancing (cRT, LWS) and MiSLAS's train_stage2.py, three steps."""
    model, data = run.classifier.model, run.data
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
    made = method(model, data, seed=5, **keys)
    torch.testing.assert_close(made.scales, scales.detach())
    for found, value in zip(last_layer(made.model).parameters(), values, strict=False):
        torch.testing.assert_close(found, value)


def test_a_second_stage_transforms_the_images_it_draws(run: TrainedRun) -> None:
    model = run.classifier.model
    turned, flipped = copy.copy(run.data), copy.copy(run.data)
    images, labels = run.data.train
    turned.transforms, flipped.train = [lambda image: image.flip(2)], (images.flip(3), labels)
    keys: dict[str, Any] = {"seed": 0, "steps": 3, "lr": 0.1, "batch_size": 32}
    first, second, other, plain = (
        last_layer(crt(model, data, **keys, transforms=redrawn)).weight
        for data, redrawn in (
            (turned, True),
            (flipped, True),
            (turned, False),
            (run.data, True),
        )
    )
    torch.testing.assert_close(first, second)
    assert not torch.equal(first, plain)
    assert torch.equal(other, plain)


def test_the_settings_of_earlier_records_have_their_hash() -> None:
    earlier = {"_partial_", "_target_", "batch_size", "lr", "steps"}
    for choice in ("crt", "lws"):
        as_before = ["posthoc.weight_decay=0", "posthoc.transforms=false"]
        values = determining(composed(f"posthoc={choice}", *as_before))
        assert {key[8:] for key in values if key.startswith("posthoc.")} == earlier


def test_the_nearest_mean_is_that_of_centred_features_of_norm_1() -> None:
    features = torch.tensor([[4.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0], [0.0, 1.0]])
    nearest = NearestMean(features, torch.tensor([0, 0, 1, 1, 1]))
    unit = features - torch.tensor([1.2, 1.0])
    unit /= unit.norm(dim=1, keepdim=True)
    means = torch.stack([unit[:2].mean(dim=0), unit[2:].mean(dim=0)])
    distances = (unit.unsqueeze(1) - means).square().sum(dim=2)
    torch.testing.assert_close(nearest(features), -distances)


def test_a_stated_prior_replaces_that_of_training(run: TrainedRun) -> None:
    model, data = run.classifier.model, run.data
    prior = [float(label + 1) for label in range(10)]
    images = data.val[0][:50]
    shifted = logits_of(label_shift(model, data, prior=prior), images).softmax(dim=1)
    weights = torch.tensor(prior) / 55 / frequencies(data.class_counts).float()
    expected = logits_of(model, images).softmax(dim=1) * weights
    torch.testing.assert_close(shifted, expected / expected.sum(dim=1, keepdim=True))
    equal = label_shift(model, data, prior=None).offsets
    by_one = -frequencies(data.class_counts).log().float()
    torch.testing.assert_close(equal - equal[0], by_one - by_one[0])
    with pytest.raises(ValueError, match=r"^posthoc\.prior: must have 10 parts, got 2"):
        label_shift(model, data, prior=[1, 2])


def test_offsets_lie_midway_and_find_the_best() -> None:
    logits = torch.tensor([[5.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    offsets = best_offsets(logits, torch.tensor([0, 0, 1, 1]))
    assert (offsets[1] - offsets[0]).item() == 2.5
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 3, generator=random)
    labels = (logits + torch.tensor([1.0, 0.0, -1.0])).argmax(dim=1)
    found = best_offsets(logits, labels)
    assert balanced_accuracy(logits + found, labels) == 1


@pytest.mark.parametrize("choice", CHOICES)
def test_a_run_goes_on_from_one_that_is_trained_as_if_it_had_trained_itself(
    plain: Path, beside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], choice: str
) -> None:
    steps = ["posthoc.steps=50"] if "steps" in composed(f"posthoc={choice}").posthoc else []
    wanted = (*CNN, f"posthoc={choice}", *steps)
    ours = train_in(beside, *wanted)
    assert f"goes on from {beside}/any/place/checkpoints/last.ckpt" in capsys.readouterr().out
    alone = train_in(tmp_path / "alone", *wanted)
    shown = capsys.readouterr().out
    assert "goes on from" not in shown
    assert f"posthoc={choice}: " in shown
    first, second, before = map(result_of, (ours, alone, plain))
    assert (first.train, first.val, first.test) == (second.train, second.val, second.test)
    assert first.config_hash == second.config_hash != before.config_hash
    assert (first.steps, first.epochs) == (second.steps, second.epochs)
    assert (first.steps, first.train) == (before.steps, before.train)
    assert first.condition.startswith(f"imbalanced, data/source=debug, posthoc={choice}")
    assert first.val != before.val
    for folder in (ours, alone):
        kept = RunFolder(folder)
        assert kept.metrics_file.read_bytes() == RunFolder(plain).metrics_file.read_bytes()
        torch.testing.assert_close(weights_in(folder), weights_in(plain), rtol=0, atol=0)
        loaded, written = load_run(folder), kept.predictions()
        assert written
        logits = logits_of(loaded.classifier, loaded.data.test[0])
        assert logits.argmax(dim=1).tolist() == written["test"].tolist()


def test_another_choice_and_a_run_side_by_side_can_be_gone_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = (*SHORT, "model=cnn", "trainer.max_epochs=2")
    first = train_in(tmp_path / "one", *short, "posthoc=lws")
    train_in(tmp_path / "one", *short, "posthoc=logit_adjustment")
    assert f"goes on from {first}/checkpoints/last.ckpt" in capsys.readouterr().out
    together = ("-m", "hydra/launcher=batched", "hydra.launcher.on_cpu=true", "seed=0,1")
    runs = tmp_path / "together"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *together, *short, f"runs_dir={runs}"])
        train.main()
    capsys.readouterr()
    before = {result.parent for result in runs.rglob("result.json")}
    after = train_in(runs, *short, "posthoc=crt", "seed=1")
    [used] = [folder for folder in before if folder.name == "seed=1"]
    assert f"goes on from {used}/checkpoints/last.ckpt" in capsys.readouterr().out
    torch.testing.assert_close(weights_in(after), weights_in(used), rtol=0, atol=0)


def test_what_is_not_the_same_training_is_not_gone_on_from(
    beside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lws_of = (*CNN, "posthoc=lws", "posthoc.steps=50")
    train_in(beside, *lws_of, "seed=1")
    assert "goes on from" not in capsys.readouterr().out
    checkpoint = RunFolder(beside / "any" / "place").last_checkpoint
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    train_in(beside, *lws_of)
    assert "goes on from" not in capsys.readouterr().out


def test_a_run_that_was_stopped_before_its_record_ends_alike(tmp_path: Path) -> None:
    overrides = (*SHORT, "model=cnn", "trainer.max_epochs=2", "posthoc=crt")
    folder = train_in(tmp_path, *overrides)
    whole = result_of(folder)
    RunFolder(folder).result_file.unlink()
    assert train_in(tmp_path, *overrides) == folder
    again = result_of(folder)
    assert (again.val, again.test, again.steps) == (whole.val, whole.test, whole.steps)


def test_noise_that_is_drawn_anew_is_the_first_epochs(tmp_path: Path) -> None:
    noisy = (*SHORT, "model=cnn", "data=noise_100", "data.redraw=true", "trainer.max_epochs=3")
    train_in(tmp_path / "both", *noisy)
    ours, alone = (train_in(tmp_path / runs, *noisy, "posthoc=crt") for runs in ("both", "alone"))
    assert result_of(ours).test == result_of(alone).test
    loaded = load_run(alone)
    written = RunFolder(alone).predictions()
    assert written
    logits = logits_of(loaded.classifier, loaded.data.test[0])
    assert logits.argmax(dim=1).tolist() == written["test"].tolist()


def test_training_that_ends_within_an_epoch_keeps_its_own_curve(tmp_path: Path) -> None:
    overrides = (*SHORT, "model=cnn", "trainer.max_epochs=-1", "trainer.max_steps=6")
    before = train_in(tmp_path, *overrides)
    after = train_in(tmp_path, *overrides, "posthoc=crt")
    assert result_of(after).steps == result_of(before).steps == 6
    files = [RunFolder(folder).metrics_file.read_bytes() for folder in (before, after)]
    assert files[0] == files[1]


def test_a_run_is_named_and_trained_alone() -> None:
    assert determining(composed("posthoc=none")) == determining(composed())
    assert program(composed("hydra.mode=RUN")) is not None
    for choice in CHOICES:
        assert program(composed(f"posthoc={choice}")) is None


MISTAKES = {  # what is written, and how its error begins
    "posthoc=crt": "model.output_relu: must be false for posthoc=crt",
    "posthoc=[crt,lws]": "posthoc: must be one choice",
    "posthoc=lws posthoc.steps=0": "posthoc.steps: Input should be greater than 0",
    "posthoc=lws posthoc.lr=x": "posthoc.lr: Input should be a valid number",
    "posthoc=temperature +posthoc.tau=1": "posthoc: ",
    "posthoc=lws posthoc._target_=builtins.dict": "posthoc: ",
    "posthoc=lws posthoc.weight_decay=-1": "posthoc.weight_decay: Input should be greater",
    "posthoc=label_shift posthoc.prior=[1,0]": "posthoc.prior.1: Input should be greater than 0",
}


@pytest.mark.parametrize(("overrides", "message"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_line_before_training(
    tmp_path: Path, overrides: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train_in(tmp_path, *SHORT, *overrides.split())
    assert isinstance(stopped.value.code, str)
    assert stopped.value.code.startswith(f"error: {message}")
    assert "\n" not in stopped.value.code
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_rate_that_is_too_high_is_named(run: TrainedRun) -> None:
    with pytest.raises(ValueError, match=r"^posthoc\.lr: the loss is (nan|inf); try a smaller"):
        crt(run.classifier.model, run.data, seed=0, steps=50, lr=1e38, batch_size=8)


def adjust_here(patch: pytest.MonkeyPatch, folder: Path, *overrides: str) -> None:
    patch.setattr("sys.argv", ["adjust", f"run='{folder}'", *overrides])
    adjust.main()


def test_every_choice_is_shown_beside_a_run(
    plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {path: path.stat().st_mtime for path in plain.rglob("*")}
    adjust_here(monkeypatch, plain, "posthoc.crt.steps=77")
    shown = capsys.readouterr().out
    assert {path: path.stat().st_mtime for path in plain.rglob("*")} == files
    rows = {name for name in CHOICES if f"{name}, " in shown}
    assert rows == set(CHOICES)
    assert "as trained" in shown and "no bias" in shown and "crt, 77 steps" in shown
    assert f"{100 * result_of(plain).test.balanced_accuracy:.1f}" in shown
    parts = compose_with(["run=x"], name="adjust").posthoc
    assert {composed(f"posthoc={name}").posthoc._target_ for name in CHOICES} == {
        step._target_ for step in parts.values()
    }


def test_the_last_relu_bars_the_re_training_alone(
    train_here: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = train_here(*SHORT, "trainer.max_epochs=5")
    capsys.readouterr()
    adjust_here(monkeypatch, folder)
    shown = capsys.readouterr().out
    assert "logit_adjustment, τ=" in shown and "lws, " in shown
    assert "\ncrt: model.output_relu: must be false" in shown


def test_no_run_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, beside: Path
) -> None:
    with pytest.raises(SystemExit, match="no run folder with a checkpoint"):
        adjust_here(monkeypatch, tmp_path)
    after = train_in(beside, *CNN, "posthoc=temperature")
    with pytest.raises(SystemExit, match="has a posthoc of its own"):
        adjust_here(monkeypatch, after)
    monkeypatch.setattr("sys.argv", ["adjust"])
    with pytest.raises(SystemExit, match="run"):
        adjust.main()
