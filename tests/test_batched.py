"""Runs trained side by side are the runs trained one by one."""

import copy
import csv
import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import groupby, product
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from torch import nn

from mnist_imbalance.config import compose_with, take_apart
from mnist_imbalance.methods.losses import MinorityWeightedCrossEntropy
from mnist_imbalance.models.cnn import LeNet5
from mnist_imbalance.models.lstm import RowLSTM
from mnist_imbalance.records.result import Result, read_predictions
from mnist_imbalance.sweeps.batched import (
    Job,
    Run,
    StackedClassifier,
    fit_together,
    program,
    shared_folder,
    similar,
)
from mnist_imbalance.sweeps.stacked import MappableLSTM, Stacked
from mnist_imbalance.training.classifier import Classifier
from mnist_imbalance.training.folder import RunFolder
from mnist_imbalance.training.run import fit_run

SHORT = ("trainer=cpu", "trainer.max_epochs=2", "data/source=debug")
KEYS_OF_THE_LSTM = [f"~model.{key}" for key in compose_with([]).model if key != "_target_"]
with (Path(__file__).parent / "golden" / "batched.csv").open(newline="") as file:
    GOLDEN = {name: list(rows) for name, rows in groupby(csv.DictReader(file), itemgetter("case"))}
TOLERANCES = {"plain_lstm_adam": 2e-3}  # of weights: it makes steps of rounding errors


def make_run(root: Path, *overrides: str) -> Run:
    task, hydra = take_apart(compose_with([*overrides, f"runs_dir={root}"], with_hydra=True))
    folder = RunFolder(Path(hydra.sweep.dir) / hydra.sweep.subdir)
    return Run(task, hydra, folder, overrides)


def make_runs(root: Path, *overrides: str, seeds: int = 2) -> list[Run]:
    return [make_run(root, *SHORT, *overrides, f"seed={seed}") for seed in range(seeds)]


def train(runs: list[Run]) -> list[Result]:
    """Train runs, all of which have a result."""
    results = []
    for run, result in zip(runs, fit_together(runs, show_progress=False), strict=True):
        assert isinstance(result, Result), result
        assert result == run.folder.result()
        results.append(result)
    return results


def weights(run: Run) -> Any:
    return torch.load(run.folder.last_checkpoint, weights_only=True)["state_dict"]


def values_of(run: Run, result: Result) -> dict[str, str]:
    """Return the values of a run that must stay as they are."""
    labels = read_predictions(run.folder.path) or {}
    predicted = b"".join(labels[split].tobytes() for split in ("val", "test"))
    metrics = (run.folder.path / "metrics.csv").read_bytes()
    return {
        **{
            f"{split}_loss": getattr(result, split).loss.hex() for split in ("train", "val", "test")
        },
        "predictions": hashlib.sha256(predicted).hexdigest()[:16],
        "metrics": hashlib.sha256(metrics).hexdigest()[:16],
        "device": result.device.rpartition(", ")[0],
        "torch": result.versions["torch"],
    }


@pytest.mark.parametrize("case", GOLDEN)
def test_runs_side_by_side_end_as_before_and_as_alone(tmp_path: Path, case: str) -> None:
    jobs = [(*SHORT, *row["overrides"].split()) for row in GOLDEN[case]]
    assert len({program(compose_with(job)) for job in jobs} - {None}) == 1
    together, alone = ([make_run(tmp_path / place, *job) for job in jobs] for place in "ab")
    for row, run, result, other in zip(GOLDEN[case], together, train(together), alone, strict=True):
        assert result.device.endswith(f", {len(jobs)} runs side by side")
        values = values_of(run, result)
        if values["device"] == row["device"] and values["torch"] == row["torch"]:
            assert values == {key: row[key] for key in values}
        by_itself = fit_run(other.config, other.hydra, other.folder, show_progress=False)
        for name in ("config", "condition", "train_counts", "groups", "steps"):
            assert getattr(result, name) == getattr(by_itself, name)
        for split in ("train", "val", "test"):
            ours, theirs = (getattr(each, split) for each in (result, by_itself))
            assert ours.loss == pytest.approx(theirs.loss, abs=1e-4)
            assert ours.metrics == pytest.approx(theirs.metrics, abs=1e-2)
            difference = torch.tensor(ours.confusion) - torch.tensor(theirs.confusion)
            assert difference.abs().sum() <= 4  # two images
        tolerance = TOLERANCES.get(case, 1e-4)
        torch.testing.assert_close(weights(run), weights(other), atol=tolerance, rtol=0)
        files = [{p.name for p in each.folder.path.rglob("*")} for each in (run, other)]
        logs = [{name for name in names if name.startswith("events.")} for names in files]
        assert files[0] - logs[0] == files[1] - logs[1]
        assert logs[0]
        rows = [
            (each.folder.path / "metrics.csv").read_text().splitlines() for each in (run, other)
        ]
        assert len(rows[0]) == len(rows[1]) == 5
    loaded = Classifier.load_from_checkpoint(together[0].folder.last_checkpoint)
    torch.testing.assert_close(loaded.state_dict(), weights(together[0]))
    assert not (tmp_path / "a" / ".batched").exists()


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_lstm_is_pytorchs(batch_first: bool) -> None:
    torch.manual_seed(0)
    original = nn.LSTM(5, 7, batch_first=batch_first)
    lstms = (original, MappableLSTM(copy.deepcopy(original)))
    rows = torch.randn(4, 6, 5)
    inputs = [rows.clone().requires_grad_() for _ in lstms]
    states = [lstm(own)[0] for lstm, own in zip(lstms, inputs, strict=True)]
    torch.testing.assert_close(states[1], states[0])
    upstream = torch.randn_like(states[0])
    for state in states:
        state.backward(upstream)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    for name, parameter in original.named_parameters():
        torch.testing.assert_close(lstms[1].get_parameter(name).grad, parameter.grad)


@pytest.mark.parametrize("make", [lambda: LeNet5(10), lambda: RowLSTM(10)])
@pytest.mark.parametrize("sizes", [[3], [1, 2]])
def test_a_stack_has_the_output_and_gradients_of_its_modules(
    make: Callable[[], nn.Module], sizes: list[int]
) -> None:
    torch.manual_seed(0)
    models = [make() for _ in range(3)]
    losses = [MinorityWeightedCrossEntropy(weight, [0, 1], 10) for weight in (2, 4, 7)]
    images, labels = torch.rand(3, 8, 1, 28, 28), torch.randint(0, 10, (3, 8))
    stack, stacked_loss = Stacked(models, sizes), Stacked(losses, [3])
    stacked = stacked_loss(stack(images), labels)
    stacked.sum().backward()
    for number, (model, loss) in enumerate(zip(models, losses, strict=True)):
        alone = loss(model(images[number]), labels[number])
        alone.backward()
        torch.testing.assert_close(stacked[number], alone)
        for name, parameter in model.named_parameters():
            gradients: Any = [dict(part.named_parameters())[name].grad for part in stack.parts]
            torch.testing.assert_close(torch.cat(gradients)[number], parameter.grad)
    assert stack.double()(images.double()).shape == (3, 8, 10)


def test_a_stack_trains_and_validates_as_its_modules_do() -> None:
    class Mode(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images + self.training

    stack = Stacked([Mode()], [1])
    assert (stack(torch.zeros(1, 1)), stack.eval()(torch.zeros(1, 1))) == (1, 0)


def test_a_run_that_diverges_takes_no_other_with_it(tmp_path: Path) -> None:
    bad, good = (make_run(tmp_path, *SHORT, f"optimizer.lr={rate}") for rate in ("1e30", "0.01"))
    failure, result = fit_together([bad, good], show_progress=False)
    assert "loss is nan in epoch 0" in str(failure)
    assert isinstance(result, Result) and "2 runs side by side" in result.device
    assert not bad.folder.config_file.exists()


def test_a_wrong_value_fails_one_run_only(tmp_path: Path) -> None:
    wrong = {
        "optimizer.lr=-1": "optimizer.lr",
        "loss.minority_weight=-2": "loss.minority_weight",
        "scheduler=[constant,cosine]": "scheduler: must be one choice",
    }
    good = make_runs(tmp_path, "loss=weighted")
    bad = [make_run(tmp_path, *SHORT, "loss=weighted", override) for override in wrong]
    *results, last = fit_together([*bad, *good], show_progress=False)
    for failure, text in zip(results, wrong.values(), strict=False):
        assert str(failure).startswith(text)
    assert isinstance(last, Result) and "2 runs side by side" in last.device


@pytest.mark.parametrize("name", ["Dropout", "FinalState", "Normalized", "TwoLayers"])
def test_a_model_that_cannot_be_stacked_is_trained_alone(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = (f"model._target_=unmappable_models.{name}", *KEYS_OF_THE_LSTM)
    results = train(make_runs(tmp_path, *model))
    assert "2 runs are trained one by one: " in capsys.readouterr().out
    assert not any("side by side" in result.device for result in results)


def test_an_unforeseen_error_takes_no_other_run_with_it(tmp_path: Path) -> None:
    model = ("model._target_=unmappable_models.Dropout", *KEYS_OF_THE_LSTM)
    runs = make_runs(tmp_path, *model)
    broken = make_run(tmp_path, *SHORT, *model, "+model.breaks=true")
    *results, failure = fit_together([*runs, broken], show_progress=False)
    assert failure == "LookupError: unforeseen"
    assert all(isinstance(result, Result) for result in results)


def test_runs_in_one_folder(tmp_path: Path) -> None:
    run, again = (make_run(tmp_path, *SHORT, "loss=weighted") for _ in range(2))
    config = make_run(tmp_path, *SHORT, "loss=weighted", "loss.minority_weight=2").config
    other = Run(config, run.hydra, run.folder)
    *equal, failure = fit_together([run, again, other], show_progress=False)
    assert equal[0] == equal[1] == run.folder.result()
    assert "holds a run with other values of loss.minority_weight" in str(failure)


def test_runs_that_another_process_trains_are_left_alone(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, seeds=3)
    with runs[0].folder.lock():
        failure, *results = fit_together(runs, show_progress=False)
    assert "another process is at work" in str(failure)
    assert all(isinstance(result, Result) for result in results)


def test_too_many_runs_for_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(StackedClassifier, "step", fail)
    failures = fit_together(make_runs(tmp_path, seeds=4), show_progress=False)
    text = "4 runs side by side do not fit into memory; choose fewer, hydra.launcher.side_by_side=2"
    assert failures == [text] * 4
    assert not (tmp_path / ".batched").exists()


def test_a_stopped_group_resumes_and_ends_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(place: str) -> list[Run]:
        keys = (*SHORT, "model=cnn", "trainer.max_epochs=4", "scheduler=cosine", "loss=cdt")
        own = product(("optimizer.lr=0.01", "optimizer.lr=0.1"), ("seed=0", "seed=1"))
        return [make_run(tmp_path / place, *keys, "loss.deferred=0.5", *each) for each in own]

    def stop(self: StackedClassifier) -> None:
        if self.current_epoch == 2:
            raise OSError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(StackedClassifier, "on_train_epoch_start", stop)
        assert fit_together(make("stopped"), show_progress=False) == ["stopped"] * 4
    begun = make("stopped")
    assert torch.load(shared_folder(begun).last_checkpoint)["epoch"] == 1
    [group] = similar([run.job for run in begun], compose_with, tmp_path / "stopped", at_most=2)
    assert len(group) == 4
    ended, undisturbed = (
        {run.job: values_of(run, result) for run, result in zip(runs, train(runs), strict=True)}
        for runs in (begun[::-1], make("undisturbed"))
    )
    assert ended == undisturbed


def test_stopped_while_runs_are_written_the_rest_is_not_trained_again(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    in_the_way = runs[1].folder.path / "metrics.csv.part"
    in_the_way.mkdir(parents=True)
    failures = fit_together(runs, show_progress=False)
    assert all("Is a directory" in str(failure) for failure in failures)
    assert [bool(run.folder.result()) for run in runs] == [True, False]
    in_the_way.rmdir()
    assert all("2 runs side by side" in result.device for result in train(runs))
    more = make_runs(tmp_path, seeds=3)
    assert "side by side" not in train(more)[2].device
    assert all(run.folder.last_checkpoint.exists() for run in more)


def test_which_runs_share_a_program() -> None:
    def shared(*overrides: str) -> str | None:
        return program(compose_with(overrides))

    assert shared() == shared("seed=3", "data.seed=4", "optimizer.lr=0.1")
    assert shared("loss=weighted") == shared("loss=weighted", "loss.minority_weight=2")
    others = ["model=cnn", "loss=weighted", "data=augmented_40", "data.batch_size=64"]
    others += ["metrics=mcc", "scheduler=cosine", "scheduler=step", "data.keep=0.2"]
    others += ["optimizer=adam", "optimizer.momentum=0.5", "trainer.max_epochs=1"]
    assert len({shared(), *map(shared, others)}) == len(others) + 1
    own_loss = ("loss=weighted", "loss._target_=somewhere.LossOfOnesOwn")  # may keep a number
    assert shared(*own_loss) != shared(*own_loss, "loss.minority_weight=2")
    methods = ["loss=vs", "loss=focal", "loss=inverse_frequency", "loss=label_aware_smoothing"]
    assert {shared(method, "loss.deferred=0.3") for method in methods} == {shared("loss=cdt")}
    assert shared("loss=focal", "loss.normalize=weight_sum") != shared("loss=focal")
    assert shared("loss=plain") != shared("loss=focal")
    scheduled = "experiment=methods_cnn"
    assert shared(scheduled, "loss=cdt") == shared(scheduled, "loss=vs", "seed=1")
    assert shared(scheduled) != shared(scheduled, "data.keep=0.01")  # has fewer steps an epoch
    watching = "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"
    alone = ["+trainer.gradient_clip_val=1.0", "optimizer._target_=torch.optim.LBFGS"]
    alone += [
        "mix=mixup",
        "posthoc=crt",
        "callbacks=early_stopping",
        "logger=csv",
        "loss=group_dro",
    ]
    alone += ["threads=0"]
    assert {shared("scheduler=step", watching), *map(shared, alone)} == {None}


def test_similar_jobs_are_grouped(tmp_path: Path) -> None:
    composed = []

    def compose(job: Job) -> Any:
        composed.append(job)
        return compose_with(job)

    sweep: list[Job] = [
        (f"seed={seed}", f"model={model}") for seed, model in product(range(4), ("lstm", "cnn"))
    ]
    alone: list[Job] = [("mix=mixup",), ("mix=mixup", "seed=1")]
    lstm, cnn = sweep[::2], sweep[1::2]
    one_by_one = [[job] for job in alone]
    groups = similar([*sweep, *alone], compose, tmp_path, 3)
    assert groups == [lstm[:3], lstm[3:], cnn[:3], cnn[3:], *one_by_one]
    assert len(composed) == 3
    assert similar([*sweep, *alone], compose, tmp_path, None) == [lstm, cnn, *one_by_one]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_ends_alike(tmp_path: Path) -> None:
    def command(root: str) -> list[str]:
        sweep = [
            "hydra/launcher=batched",
            "hydra.launcher.on_cpu=true",
            f"runs_dir={tmp_path / root}",
        ]
        values = ["seed=0,1", "optimizer.lr=0.001,0.01", "trainer.max_epochs=9"]
        return [sys.executable, "-m", "mnist_imbalance.train", "-m", *SHORT, *sweep, *values]

    begun = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, cwd=REPOSITORY)
    place = tmp_path / "killed" / ".batched"
    while not list(place.glob("*/checkpoints/last.ckpt")):
        assert begun.poll() is None
        time.sleep(0.02)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    assert not list((tmp_path / "killed").rglob("result.json"))
    for root in ("killed", "undisturbed"):
        done = subprocess.run(command(root), capture_output=True, text=True, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "undisturbed").rglob("metrics.csv"))
    assert len(files) == 4
    for file in files:
        other = tmp_path / "killed" / file.relative_to(tmp_path / "undisturbed")
        assert other.read_text() == file.read_text()
        assert "4 runs side by side" in other.with_name("result.json").read_text()
    assert not place.exists()
