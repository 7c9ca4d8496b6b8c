"""Runs trained side by side are the runs trained alone."""

import copy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from torch import nn

from mnist_imbalance import train
from mnist_imbalance.batched.fit import Run, fit_side_by_side, folder_of
from mnist_imbalance.batched.launch import program
from mnist_imbalance.batched.lstm import MappableLSTM
from mnist_imbalance.batched.stacked import Stacked
from mnist_imbalance.config import compose_with, take_apart
from mnist_imbalance.fit import fit_run
from mnist_imbalance.methods.losses import MinorityWeightedCrossEntropy
from mnist_imbalance.models.cnn import LeNet5
from mnist_imbalance.models.lstm import RowLSTM
from mnist_imbalance.runs import Result, RunFolder

SHORT = ("trainer.accelerator=cpu", "trainer.max_epochs=2", "+trainer.limit_train_batches=10")
FEW = (*SHORT, "data/source=debug")  # where any images do
KEYS_OF_THE_LSTM = [f"~model.{key}" for key in compose_with([]).model if key != "_target_"]
SMALL = ("model=cnn", "data/source=debug")
DIFFERENT = [
    ("loss=weighted", "seed=0"),
    ("loss=weighted", "seed=1", "loss.minority_weight=2"),
    ("loss=weighted", "seed=1", "optimizer.lr=0.01", "data.seed=5"),
]
METHODS = [
    ("loss=vs", "seed=0", "optimizer.lr=0.1"),
    ("loss=class_balanced", "seed=1", "optimizer.lr=0.03"),
    ("loss=focal", "seed=1", "optimizer.lr=0.1", "loss.deferred=0.5"),
]


def make_run(root: Path, *overrides: str) -> Run:
    config = compose_with([*overrides, f"runs_dir={root}"], with_hydra=True)
    task, hydra = take_apart(config)
    return Run(task, hydra, RunFolder(Path(hydra.run.dir)))


def make_runs(
    root: Path, *overrides: str, different: list[tuple[str, ...]] = DIFFERENT
) -> list[Run]:
    return [make_run(root, *overrides, *SHORT, *own) for own in different]


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_lstm_is_pytorchs(batch_first: bool) -> None:
    torch.manual_seed(0)
    theirs = nn.LSTM(5, 7, batch_first=batch_first)
    ours = MappableLSTM(copy.deepcopy(theirs))
    rows = torch.randn(4, 6, 5)
    given = [rows.clone().requires_grad_() for _ in range(2)]
    states = [lstm(its_rows)[0] for lstm, its_rows in zip((theirs, ours), given, strict=True)]
    torch.testing.assert_close(states[1], states[0])
    upstream = torch.randn_like(states[0])
    for state in states:
        state.backward(upstream)
    torch.testing.assert_close(given[1].grad, given[0].grad)
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad)


def test_other_lstms_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="one layer"):
        MappableLSTM(nn.LSTM(5, 7, num_layers=2))


@pytest.mark.parametrize("make", [lambda: LeNet5(10), lambda: RowLSTM(10)])
@pytest.mark.parametrize("sizes", [[3], [1, 2]])
def test_a_stack_has_each_modules_output_and_gradients(
    make: Callable[[], nn.Module], sizes: list[int]
) -> None:
    torch.manual_seed(0)
    models = [make() for _ in range(3)]
    losses = [MinorityWeightedCrossEntropy(weight, [0, 1], 10) for weight in (2, 4, 7)]
    images, labels = torch.rand(3, 8, 1, 28, 28), torch.randint(0, 10, (3, 8))
    stack, stacked_loss = Stacked(models, sizes), Stacked(losses, [3])
    reached = stacked_loss(stack(images), labels)
    reached.sum().backward()
    for number, (model, loss) in enumerate(zip(models, losses, strict=True)):
        alone = loss(model(images[number]), labels[number])
        alone.backward()
        torch.testing.assert_close(reached[number], alone)
        for name, parameter in model.named_parameters():
            gradients: Any = [dict(part.named_parameters())[name].grad for part in stack.parts]
            torch.testing.assert_close(torch.cat(gradients)[number], parameter.grad)


def test_a_stack_can_move() -> None:
    stack = Stacked([RowLSTM(10) for _ in range(2)], [2])
    assert stack.double()(torch.zeros(2, 1, 1, 28, 28).double()).shape == (2, 1, 10)


def test_a_stack_trains_and_validates_as_its_modules_do() -> None:
    class Mode(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images + self.training

    stack = Stacked([Mode()], [1])
    assert (stack(torch.zeros(1, 1)), stack.eval()(torch.zeros(1, 1))) == (1, 0)


@pytest.mark.parametrize(
    ("different", "choices", "tolerance"),
    [
        (DIFFERENT, ("model=lstm",), 1e-5),
        (DIFFERENT, ("model=cnn",), 1e-4),
        (DIFFERENT, (*SMALL, "data/transforms=affine"), 1e-4),
        (
            DIFFERENT,
            ("model=lstm", "data/source=debug", "optimizer=adam"),
            2e-3,  # it makes steps of rounding errors
        ),
        (METHODS, (*SMALL, "scheduler=cosine", "trainer.max_steps=6"), 1e-4),
        (METHODS, (*SMALL, "scheduler=step", "scheduler.step_size=3"), 1e-4),
        (METHODS, (*SMALL, "scheduler=warmup", "data.minority=3", "metrics=calibration"), 1e-4),
    ],
)
def test_runs_side_by_side_end_as_alone(
    tmp_path: Path, different: list[tuple[str, ...]], choices: tuple[str, ...], tolerance: float
) -> None:
    runs = make_runs(tmp_path / "together", *choices, different=different)
    outcomes = fit_side_by_side(runs, show_progress=False)
    others = make_runs(tmp_path / "alone", *choices, different=different)
    for run, other in zip(runs, others, strict=True):
        alone = fit_run(other.config, other.hydra, other.folder, show_progress=False)
        together = outcomes[run.folder.path]
        assert isinstance(together, Result)
        assert together == run.folder.result()
        assert "3 runs side by side" in together.device
        assert together.config == alone.config
        assert together.train_counts == alone.train_counts
        for stage in ("train", "val", "test"):
            ours, theirs = (getattr(result, stage) for result in (together, alone))
            assert ours.loss == pytest.approx(theirs.loss, abs=1e-4)
            assert ours.metrics == pytest.approx(theirs.metrics, abs=1e-2)
            difference = torch.tensor(ours.confusion) - torch.tensor(theirs.confusion)
            assert difference.abs().sum() <= 4  # two images of 10,000
        states = [
            torch.load(folder.last_checkpoint, weights_only=True)["state_dict"]
            for folder in (run.folder, other.folder)
        ]
        torch.testing.assert_close(states[0], states[1], atol=tolerance, rtol=0)
        rows = [
            folder.metrics_file.read_text().splitlines() for folder in (run.folder, other.folder)
        ]
        assert len(rows[0]) == len(rows[1]) == 5
        written = [sorted(p.name for p in f.path.iterdir()) for f in (run.folder, other.folder)]
        assert written[0] == written[1]
    assert not (tmp_path / "together" / ".batched").exists()


def test_a_run_that_diverges_takes_no_other_with_it(tmp_path: Path) -> None:
    good = make_run(tmp_path, *FEW, "optimizer.lr=0.01")
    bad = make_run(tmp_path, *FEW, "optimizer.lr=1e30")
    outcomes = fit_side_by_side([bad, good], show_progress=False)
    assert isinstance(outcomes[good.folder.path], Result)
    assert "loss is nan in epoch 0" in str(outcomes[bad.folder.path])
    assert bad.folder.result() is None
    assert bad.folder.is_fresh()


def test_a_wrong_value_fails_one_run_only(tmp_path: Path) -> None:
    good = make_runs(tmp_path, "data/source=debug")
    rate = make_run(tmp_path, *FEW, "loss=weighted", "optimizer.lr=-1")
    weights = make_run(tmp_path, *FEW, "loss=per_label", "loss.weights=[1]")
    choices = make_run(tmp_path, *FEW, "scheduler=[constant,cosine]")
    outcomes = fit_side_by_side([rate, *good, weights, choices], show_progress=False)
    assert "optimizer.lr" in str(outcomes[rate.folder.path])
    assert "scheduler: must be one choice" in str(outcomes[choices.folder.path])
    assert "loss.weights" in str(outcomes[weights.folder.path])
    assert all(isinstance(outcomes[run.folder.path], Result) for run in good)


@pytest.mark.parametrize("name", ["Dropout", "FinalState", "Normalized", "TwoLayers"])
def test_a_model_that_cannot_be_mapped_is_trained_alone(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = (f"model._target_=unmappable_models.{name}", *KEYS_OF_THE_LSTM)
    runs = [make_run(tmp_path, *FEW, *model, f"seed={seed}") for seed in (0, 1)]
    outcomes = fit_side_by_side(runs, show_progress=False)
    assert "2 runs are trained one by one: " in capsys.readouterr().out
    for run in runs:
        result = outcomes[run.folder.path]
        assert isinstance(result, Result)
        assert "side by side" not in result.device


def test_an_unforeseen_error_takes_no_other_run_with_it(tmp_path: Path) -> None:
    model = ("model._target_=unmappable_models.Dropout", *KEYS_OF_THE_LSTM)
    runs = [make_run(tmp_path, *FEW, *model, f"seed={seed}") for seed in (0, 1)]
    broken = make_run(tmp_path, *FEW, *model, "+model.breaks=true")
    outcomes = fit_side_by_side([runs[0], broken, runs[1]], show_progress=False)
    assert outcomes[broken.folder.path] == "LookupError: unforeseen"
    assert all(isinstance(outcomes[run.folder.path], Result) for run in runs)


def test_equal_runs_in_two_folders_are_both_kept(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / place, *FEW) for place in ("one", "other")]
    fit_side_by_side(runs, show_progress=False)
    ours, theirs = (run.folder.result() for run in runs)
    assert ours and theirs
    assert ours.test == theirs.test


def test_what_another_process_shares_is_left_alone(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, *FEW, f"seed={seed}") for seed in range(2)]
    shared = folder_of(runs)
    with shared.lock():
        (shared.path / "theirs").touch()
        outcomes = fit_side_by_side(runs, show_progress=False)
        assert (shared.path / "theirs").exists()
    assert all("another process is at work" in str(why) for why in outcomes.values())


def test_stopped_while_runs_are_written_another_sweep_does_the_rest(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, *FEW, f"seed={seed}") for seed in range(2)]
    in_the_way = runs[1].folder.metrics_file.with_suffix(".csv.part")
    in_the_way.mkdir(parents=True)
    stopped = fit_side_by_side(runs, show_progress=False)
    assert all("Is a directory" in str(outcome) for outcome in stopped.values())
    assert [run.is_finished for run in runs] == [True, False]
    in_the_way.rmdir()
    again = fit_side_by_side(runs, show_progress=False)
    assert [isinstance(again[run.folder.path], Result) for run in runs] == [True, True]
    more = [make_run(tmp_path, *FEW, f"seed={seed}") for seed in range(3)]
    outcomes = fit_side_by_side(more, show_progress=False)
    assert all(isinstance(outcome, Result) for outcome in outcomes.values())
    assert all(run.folder.last_checkpoint.exists() for run in more)


def test_too_many_runs_for_the_memory_are_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("model._target_=large_model.Large", *KEYS_OF_THE_LSTM)
    rates = [f"optimizer.lr={rate}" for rate in (0.001, 0.002, 0.003, 0.004)]
    runs = [make_run(tmp_path, *FEW, *model, rate) for rate in rates]
    outcomes = fit_side_by_side(runs, show_progress=False)
    assert "4 runs do not fit into memory: in halves" in capsys.readouterr().out
    for run in runs:
        result = outcomes[run.folder.path]
        assert isinstance(result, Result)
        assert "2 runs side by side" in result.device


def test_which_runs_share_a_program() -> None:
    def shared(*overrides: str) -> str | None:
        return program(compose_with(overrides))

    assert shared() == shared("seed=3", "data.seed=4", "optimizer.lr=0.1")
    assert shared("loss=weighted") == shared("loss=weighted", "loss.minority_weight=2")
    others = [
        "model=cnn",
        "loss=weighted",
        "data=augmented_40",
        "data.batch_size=64",
        "metrics=mcc",
    ]
    others += [
        "scheduler=cosine",
        "scheduler=step",
        "data.keep=0.2",
        "optimizer=adam",
        "optimizer.momentum=0.5",
        "trainer.max_epochs=1",
    ]
    assert len({shared(), *map(shared, others)}) == len(others) + 1
    another = ("loss=weighted", "loss._target_=somewhere.LossOfOnesOwn")  # may keep it as a number
    assert shared(*another) != shared(*another, "loss.minority_weight=2")
    methods = [
        ("loss=vs", "optimizer.lr=0.1"),
        ("loss=focal", "loss.gamma=1"),
        ("loss=class_balanced", "seed=1"),
    ]
    scheduled = "experiment=methods_cnn"
    assert len({shared(scheduled, *own) for own in methods}) == 1
    assert shared(scheduled) != shared(scheduled, "data.keep=0.01")  # has fewer steps an epoch
    watching = "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"
    assert shared("scheduler=step", watching) is None
    assert shared("+trainer.gradient_clip_val=1.0") is None
    assert shared("optimizer._target_=torch.optim.LBFGS") is None


SWEEP = [
    *("-m", "hydra/launcher=batched", "loss=weighted", "loss.minority_weight=2,7"),
    *("trainer.accelerator=cpu", "+trainer.limit_train_batches=10"),
]


def sweep(root: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "mnist_imbalance.train", *SWEEP, f"runs_dir={root}", *overrides]


@pytest.mark.slow
def test_the_launcher_hands_over_to_processes_on_a_cpu(tmp_path: Path) -> None:
    command = sweep(tmp_path, "trainer.max_epochs=1", "seed=0")
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    results = [RunFolder(file.parent).result() for file in tmp_path.rglob("result.json")]
    assert len(results) == 2
    assert not [result for result in results if result and "side by side" in result.device]


def test_two_runs_in_one_folder_are_not_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one_folder = ["hydra.launcher.on_cpu=true", "hydra.sweep.subdir=x", "trainer.max_epochs=1"]
    command = ["train", *SWEEP, *one_folder, "data/source=debug", f"runs_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stopped:
        train.main()
    said = str(stopped.value.code)
    assert "1 of 2 jobs failed" in said
    assert f"runs_dir: {tmp_path / 'x'} is the folder of another run of this sweep" in said
    [record] = tmp_path.rglob("result.json")
    result = RunFolder(record.parent).result()
    assert result is not None
    assert result.config["loss.minority_weight"] == 2


def test_a_job_that_cannot_begin_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    too_long = ["hydra.launcher.on_cpu=true", f"hydra.sweep.subdir={'x' * 300}"]
    command = ["train", *SWEEP, *too_long, "mix=mixup", f"runs_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stopped:
        train.main()
    first, *told = str(stopped.value.code).splitlines()
    assert first == "error: 2 of 2 jobs failed"
    assert len(told) == 2
    assert all(": a value is too long to name the run's folder;" in each for each in told)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_ends_alike(tmp_path: Path) -> None:
    forced = ["hydra.launcher.on_cpu=true", "data/source=debug", "trainer.max_epochs=9"]
    forced += ["seed=0,1", "optimizer.lr=0.001,0.01", "scheduler=cosine"]
    begun = subprocess.Popen(
        sweep(tmp_path / "killed", *forced), stdout=subprocess.DEVNULL, cwd=REPOSITORY
    )
    place = tmp_path / "killed" / ".batched"
    while not list(place.glob("*/checkpoints/last.ckpt")):
        assert begun.poll() is None
        time.sleep(0.02)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    assert not list((tmp_path / "killed").rglob("result.json"))
    for root in ("killed", "undisturbed"):
        command = sweep(tmp_path / root, *forced)
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr
        assert ("0/9 epochs" in done.stderr) == (root == "undisturbed")
    files = sorted((tmp_path / "undisturbed").rglob("result.json"))
    assert len(files) == 8
    for file in files:
        other = RunFolder(tmp_path / "killed" / file.parent.relative_to(tmp_path / "undisturbed"))
        ours, theirs = other.result(), RunFolder(file.parent).result()
        assert ours and theirs
        assert "8 runs side by side" in ours.device
        assert (ours.train, ours.val, ours.test) == (theirs.train, theirs.val, theirs.test)
        assert other.metrics_file.read_text() == RunFolder(file.parent).metrics_file.read_text()
    assert not place.exists()
