"""Runs trained side by side are the runs trained one by one."""

import csv
from collections.abc import Callable
from itertools import groupby, product
from operator import itemgetter
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest
import torch
from conftest import make_run
from test_golden import digest
from torch import nn

from mnist_imbalance.config import compose_with
from mnist_imbalance.methods.losses import MinorityWeightedCrossEntropy
from mnist_imbalance.models.cnn import LeNet5
from mnist_imbalance.models.lstm import RowLSTM
from mnist_imbalance.models.resnet import ResNet
from mnist_imbalance.records.result import Result, read_predictions
from mnist_imbalance.sweeps import batched
from mnist_imbalance.sweeps.batched import Run, StackedClassifier, fit_runs, similar, stacking_key
from mnist_imbalance.sweeps.stacked import MappableLSTM, Stacked
from mnist_imbalance.training.classifier import Classifier
from mnist_imbalance.training.folder import lock

SHORT = ("trainer=cpu", "trainer.max_epochs=2", "data/source=debug")
QUICK = (*SHORT, "logger=none")
KEYS_OF_THE_LSTM = [f"~model.{key}" for key in compose_with([]).model if key != "_target_"]
with (Path(__file__).parent / "golden" / "batched.csv").open(newline="") as file:
    GOLDEN = {name: list(rows) for name, rows in groupby(csv.DictReader(file), itemgetter("case"))}
# of weights: Adam makes steps of rounding errors, and running variances are large
TOLERANCES = {"plain_lstm_adam": 2e-3, "augmented_resnet": 2e-3}
SLOW = ("plain_lstm_adam", "exponential_lstm", "noise_cnn")  # take no other way than the others
CASES = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in GOLDEN]


def train(runs: list[Run]) -> list[Result]:
    """Train runs, all of which have a result."""
    results = []
    for run, result in zip(runs, fit_runs(runs, show_progress=False), strict=True):
        assert isinstance(result, Result), result
        assert result == run.folder.result()
        results.append(result)
    return results


def values_of(run: Run, result: Result) -> dict[str, str]:
    """Return the values of a run that must stay as they are."""
    labels = read_predictions(run.folder.path)
    losses = {name: getattr(result, name).loss.hex() for name in ("train", "val", "test")}
    return {
        **{f"{split}_loss": loss for split, loss in losses.items()},
        "predictions": digest(labels[split].tobytes() for split in ("val", "test")),
        "metrics": digest([(run.folder.path / "metrics.csv").read_bytes()]),
        "device": result.device.rpartition(", ")[0],
        "torch": result.versions["torch"],
    }


@pytest.mark.parametrize("case", CASES)
def test_runs_side_by_side_end_as_before_and_as_alone(tmp_path: Path, case: str) -> None:
    keys = QUICK if case != "weights_lstm" else SHORT
    jobs = [(*keys, *row["overrides"].split()) for row in GOLDEN[case]]
    together = [make_run(tmp_path / "together", *job) for job in jobs]
    assert len({stacking_key(run.config) for run in together} - {None}) == 1
    results = train(together)
    for row, run, result in zip(GOLDEN[case], together, results, strict=True):
        assert result.device.endswith(f", {len(jobs)} runs side by side")
        values = values_of(run, result)
        if values["device"] == row["device"] and values["torch"] == row["torch"]:
            assert values == {key: row[key] for key in values}
    alone = make_run(tmp_path / "alone", *jobs[-1])
    [by_itself] = train([alone])
    for name in ("config", "condition", "train_counts", "groups", "steps"):
        assert getattr(result, name) == getattr(by_itself, name)
    for split in ("train", "val", "test"):
        one, other = (getattr(each, split) for each in (result, by_itself))
        assert one.loss == pytest.approx(other.loss, abs=1e-4)
        assert one.metrics == pytest.approx(other.metrics, abs=1e-2)
        difference = torch.tensor(one.confusion) - torch.tensor(other.confusion)
        assert difference.abs().sum() <= 4  # two images
    loaded, expected = (
        Classifier.load_from_checkpoint(each.folder.last_checkpoint).state_dict()
        for each in (run, alone)
    )
    torch.testing.assert_close(loaded, expected, atol=TOLERANCES.get(case, 1e-4), rtol=0)
    names = [
        {path.name.partition(".tfevents")[0] for path in each.folder.path.rglob("*")}
        for each in (run, alone)
    ]
    assert names[0] == names[1]
    assert not list(tmp_path.rglob("side_by_side_*"))


class Embedding(RowLSTM):
    """Needs the gradient of its LSTM's inputs, and replaces a buffer, which others change."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__(10)
        self.embed = nn.Linear(28, 28)
        self.register_buffer("mean", torch.zeros(28))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.mean = (self.mean + images.mean()) / 2
        return super().forward(self.embed(images) - self.mean)


MODELS = [lambda: LeNet5(10), Embedding, lambda: ResNet(10, (1, 28, 28))]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("sizes", [[3], [1, 2]])
def test_a_stack_is_its_modules(make: Callable[[], nn.Module], sizes: list[int]) -> None:
    torch.manual_seed(0)
    models = [make().double() for _ in range(3)]
    losses = [MinorityWeightedCrossEntropy(w, [0, 1], 10, "weight_sum") for w in (2, 4, 7)]
    images, labels = torch.rand(3, 8, 1, 28, 28).double(), torch.randint(0, 10, (3, 8))
    stack, stacked_loss = Stacked(models, sizes), Stacked(losses, [3]).double()
    stacked = stacked_loss(stack(images), labels)
    stacked.sum().backward()
    for number, (model, loss) in enumerate(zip(models, losses, strict=True)):
        alone = loss.double()(model(images[number]), labels[number])
        alone.backward()
        torch.testing.assert_close(stacked[number], alone)
        for name, parameter in model.named_parameters():
            gradients: Any = [dict(part.named_parameters())[name].grad for part in stack.parts]
            torch.testing.assert_close(torch.cat(gradients)[number], parameter.grad)
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(stack.tensors(number)[name], buffer)
    assert stack.float()(images.float()).shape == (3, 8, 10)


def test_no_run_takes_another_with_it(tmp_path: Path) -> None:
    def make(*overrides: str) -> Run:
        return make_run(tmp_path, *QUICK, "loss=weighted", *overrides)

    wrong = {
        "optimizer.lr=1e30": "optimizer.lr: the ",
        "optimizer.lr=-1": "optimizer.lr",
        "loss.minority_weight=-2": "loss.minority_weight",
        "scheduler=[constant,cosine]": "scheduler: must be one choice",
    }
    first, second, locked = (make(f"seed={seed}") for seed in range(3))
    in_its_folder = Run(make("loss.minority_weight=2").config, first.hydra, first.folder)
    runs = [first, second, *map(make, wrong), make("seed=0"), in_its_folder, locked]
    with lock(locked.folder.path):
        one, two, *failures, again, taken, busy = fit_runs(runs, show_progress=False)
    for failure, text in zip(failures, wrong.values(), strict=True):
        assert str(failure).startswith(text)
    assert isinstance(one, Result) and isinstance(two, Result)
    assert "3 runs side by side" in one.device and "3 runs side by side" in two.device
    assert again == one == first.folder.result()
    assert "holds a run with other values of loss.minority_weight" in str(taken)
    assert "another process is at work" in str(busy)
    assert not runs[2].folder.config_file.exists()


def test_models_that_cannot_be_stacked_are_trained_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(name: str, *own: str) -> list[Run]:
        model = (*QUICK, f"model._target_=unmappable_models.{name}", *KEYS_OF_THE_LSTM)
        return [make_run(tmp_path / name, *model, each) for each in own]

    dropout = make("Dropout", "seed=0", "+model.breaks=true")
    result, failure = fit_runs(dropout, show_progress=False)
    assert isinstance(result, Result) and "side by side" not in result.device
    assert failure == "LookupError: unforeseen"
    monkeypatch.setattr("mnist_imbalance.training.run.run_or_resume", lambda *_: "alone")
    assert fit_runs(make("Averaged", "seed=0", "seed=1"), False) == ["alone"] * 2
    assert capsys.readouterr().out.count("2 runs are trained one by one: ") == 2
    with pytest.raises(NotImplementedError):
        MappableLSTM(nn.LSTM(5, 7, num_layers=2, batch_first=True))


@pytest.mark.parametrize("model", ["lstm", "resnet"])
def test_a_stopped_group_resumes_and_ends_alike(tmp_path: Path, model: str) -> None:
    def make(place: str) -> list[Run]:
        keys = (*QUICK, f"model={model}", "scheduler=cosine", "loss=cdt", "loss.deferred=0.5")
        own = ("optimizer.lr=0.1", "optimizer.lr=0.01")
        return [make_run(tmp_path / place, *keys, each) for each in own]

    def stop(self: StackedClassifier) -> None:
        if self.current_epoch == 1:
            raise OSError("stopped")

    begun, undisturbed = make("stopped"), make("undisturbed")
    with patch.object(StackedClassifier, "on_train_epoch_start", stop):
        assert fit_runs(begun, show_progress=False) == ["stopped"] * 2
    [checkpoint] = (tmp_path / "stopped").rglob("last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 0
    with patch.object(batched, "write_record", side_effect=OSError("killed")):  # after a checkpoint
        assert fit_runs(begun, show_progress=False) == ["killed"] * 2
    assert sum(run.folder.last_checkpoint.exists() for run in begun) == 1
    assert not any(run.folder.result() for run in begun)
    ended = [values_of(*pair) for pair in zip(begun, train(begun[::-1])[::-1], strict=True)]
    assert ended == [values_of(*pair) for pair in zip(undisturbed, train(undisturbed), strict=True)]
    assert not checkpoint.exists()
    train(begun)  # are finished


def test_which_runs_are_stacked() -> None:
    def shared(*overrides: str) -> str | None:
        return stacking_key(compose_with(overrides))

    assert shared() == shared("seed=3", "data.seed=4", "optimizer.lr=0.1")
    others = ["model=cnn", "loss=weighted", "data=augmented_40", "metrics=mcc", "scheduler=cosine"]
    others += ["data.keep=0.2", "optimizer.momentum=0.5", "trainer.max_epochs=1"]
    assert len({shared(), *map(shared, others)}) == len(others) + 1
    own_loss = ("loss=weighted", "loss._target_=somewhere.LossOfOnesOwn")  # may keep a number
    assert shared(*own_loss) != shared(*own_loss, "loss.minority_weight=2")
    methods = ["loss=vs", "loss=focal", "loss=label_aware_smoothing"]
    assert {shared(method, "loss.deferred=0.3") for method in methods} == {shared("loss=cdt")}
    assert shared("loss=focal", "loss.normalize=weight_sum") != shared("loss=focal")
    watching = "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"
    alone = ["+trainer.gradient_clip_val=1.0", "optimizer._target_=torch.optim.LBFGS", "threads=0"]
    alone += ["mix=mixup", "posthoc=crt", "callbacks=early_stopping", "logger=csv"]
    assert {shared("scheduler=step", watching), *map(shared, alone)} == {None}


def test_similar_jobs_are_grouped() -> None:
    compose = Mock(side_effect=compose_with)
    sweep: list[tuple[str, ...]] = [
        (f"seed={seed}", f"model={model}") for seed, model in product(range(4), ("lstm", "cnn"))
    ]
    alone: list[tuple[str, ...]] = [("mix=mixup",), ("mix=mixup", "seed=1")]
    lstm, cnn = sweep[::2], sweep[1::2]
    one_by_one = [[job] for job in alone]
    groups = similar([*sweep, *alone], compose, 3)
    assert groups == [lstm[:3], lstm[3:], cnn[:3], cnn[3:], *one_by_one]
    assert compose.call_count == 3
    assert similar([*sweep, *alone], compose, None) == [lstm, cnn, *one_by_one]
