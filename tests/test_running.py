"""What users of Lightning and Hydra are used to, over a few real images."""

import sys
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
import torch
from conftest import composed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_imbalance import train
from mnist_imbalance.sweeps.batched import program
from mnist_imbalance.classifier import Classifier
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.runs import Result, RunFolder, determining

SMALL = ["data/source=debug", "trainer=cpu"]
Train = Callable[..., Path]


@pytest.fixture
def run_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The training command line in this process, its runs below a folder."""

    def run(runs: Path, *overrides: str) -> None:
        given = [*SMALL, *overrides, f"runs_dir={runs}"]
        monkeypatch.setattr(sys, "argv", ["train", *given])
        train.main()

    return run


def result_below(folder: Path) -> Result:
    [file] = folder.rglob("result.json")
    result = RunFolder(file.parent).result()
    assert result
    return result


def test_a_run_that_is_out_of_time_goes_on_with_the_same_numbers(
    run_in: Train, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=r"without trainer\.max_time goes on from there$"):
        run_in(tmp_path / "cut", "trainer.max_epochs=9999", "+trainer.max_time=00:00:00:01")
    [checkpoint] = (tmp_path / "cut").rglob("last.ckpt")
    assert "max_time" not in str(checkpoint)
    done = torch.load(checkpoint, weights_only=True)["epoch"] + 1
    whole = f"trainer.max_epochs={done}"
    run_in(tmp_path / "whole", whole)
    states = [
        torch.load(path, weights_only=True)["state_dict"]
        for path in (checkpoint, next((tmp_path / "whole").rglob("last.ckpt")))
    ]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    with pytest.raises(SystemExit, match=rf"ended after {done} of 9999"):  # its time is over
        run_in(tmp_path / "cut", "trainer.max_epochs=9999", "+trainer.max_time=00:00:00:01")


def test_a_profile_is_shown(
    run_in: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(tmp_path, "trainer.max_epochs=1", "+trainer.profiler=simple")
    assert "run_training_batch" in capsys.readouterr().out
    assert "profiler" not in str(next(tmp_path.rglob("result.json")))


@pytest.mark.parametrize("how", ["debug=fdr", "+trainer.fast_dev_run=true"])
def test_a_run_on_trial_leaves_nothing(
    run_in: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    run_in(tmp_path, how)
    printed = capsys.readouterr().out
    assert "on trial" in printed
    assert "run folder" not in printed
    assert list(tmp_path.iterdir()) == []


def test_a_limited_run_is_kept_and_named(run_in: Train, tmp_path: Path) -> None:
    run_in(tmp_path, "debug=limit")
    result = result_below(tmp_path)
    assert "trainer.limit_train_batches=10" in result.condition
    assert result.epochs == 3


def test_overfitting_learns_by_heart(run_in: Train, tmp_path: Path) -> None:
    run_in(tmp_path, "debug=overfit", "model=cnn", "trainer.max_epochs=30")
    assert result_below(tmp_path).train.loss < 0.1


@pytest.mark.parametrize(
    ("override", "left"),
    [
        ("logger=csv", {"csv"}),
        ("logger=[tensorboard,csv]", {"csv", "tensorboard"}),
        ("logger=[]", set()),
        ("logger=none", set()),
    ],
)
def test_loggers_are_combined_and_change_no_run(
    run_in: Train, tmp_path: Path, override: str, left: set[str]
) -> None:
    run_in(tmp_path, override, "trainer.max_epochs=2")
    folder = next(tmp_path.rglob("result.json")).parent
    assert {path.name for path in folder.iterdir() if path.is_dir()} - {".hydra"} == (
        left | {"checkpoints"}
    )
    if "csv" in left:
        rows = pandas.read_csv(folder / "csv" / "metrics.csv")
        ours = pandas.read_csv(folder / "metrics.csv", index_col=["stage", "epoch"])
        assert rows["val/accuracy"].dropna().tolist() == pytest.approx(
            ours.loc["val"]["accuracy"].tolist(), rel=1e-4
        )
    assert determining(composed(override)) == determining(composed())


def test_a_run_that_goes_on_has_all_epochs_in_the_csv(run_in: Train, tmp_path: Path) -> None:
    run_in(tmp_path, "logger=csv", "trainer.max_epochs=3")
    folder = next(tmp_path.rglob("result.json")).parent
    logged = pandas.read_csv(folder / "csv" / "metrics.csv")
    (folder / "result.json").unlink()  # as if it had been stopped after its last epoch
    run_in(tmp_path, "logger=csv", "trainer.max_epochs=3")
    again = pandas.read_csv(folder / "csv" / "metrics.csv")
    for column in ("train/loss", "val/accuracy", "val/loss", "test/accuracy"):
        rows = [each.set_index("step")[column].dropna() for each in (logged, again)]
        assert len(rows[0]) == (1 if column == "test/accuracy" else 3)
        pandas.testing.assert_series_equal(*rows, rtol=1e-5)


def test_a_run_that_a_callback_ends_is_whole_and_says_why(run_in: Train, tmp_path: Path) -> None:
    early = ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=0.1"]
    run_in(tmp_path, *early)
    result = result_below(tmp_path)
    assert 1 < result.epochs < 50
    assert result.config["callbacks.early_stopping.patience"] == 1
    assert result.condition == (
        "imbalanced, callbacks=early_stopping, data/source=debug, "
        "callbacks.early_stopping.patience=1, optimizer.lr=0.1"
    )
    next(tmp_path.rglob("result.json")).unlink()  # killed after the last checkpoint
    run_in(tmp_path, *early)
    again = result_below(tmp_path)
    assert (again.epochs, again.test, again.val) == (result.epochs, result.test, result.val)


def rates(checkpoint: Path) -> float:
    [optimizer] = torch.load(checkpoint, weights_only=True)["optimizer_states"]
    rate: float = optimizer["param_groups"][0]["lr"]
    return rate


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [
        (["scheduler=constant"], 0.001),
        (["scheduler=cosine"], 0.0),
        (["scheduler=cosine", "+scheduler.T_max=16"], 0.0005),
        (["scheduler=step", "scheduler.step_size=5"], 0.0001),
        (["scheduler=warmup", "scheduler.total_iters=16"], 0.001 * (0.01 + 0.99 / 2)),
    ],
)
def test_a_scheduler_counts_optimizer_steps(
    run_in: Train, tmp_path: Path, overrides: list[str], rate: float
) -> None:
    run_in(tmp_path, *overrides, "trainer.max_epochs=2")  # 8 steps
    assert rates(next(tmp_path.rglob("last.ckpt"))) == pytest.approx(rate, abs=1e-9)


def test_what_no_other_run_can_share_is_trained_alone() -> None:
    assert program(composed("hydra.mode=RUN")) is not None
    for override in ("callbacks=early_stopping", "logger=csv", "mix=mixup"):
        assert program(composed(override)) is None
    assert program(composed("+trainer.max_time=00:00:01:00")) is None
    plain = composed("scheduler=constant", "mix=none", "data/transforms=none")
    assert determining(plain) == determining(composed())
    assert not {"mix", "data.transforms"} & determining(plain).keys()


@pytest.mark.parametrize(
    ("override", "key", "parameters"),
    [
        ("model.hidden_size=64", "model.hidden_size", 44_042),
        ("model.hidden_size=128", "model.hidden_size", 100_874),
        ("model.channels=[6,16]", "model.channels", 61_706),
        ("model.features=[60,30]", "model.features", 28_772),
    ],
)
def test_models_have_sizes(
    run_in: Train, tmp_path: Path, override: str, key: str, parameters: int
) -> None:
    model = "lstm" if "hidden" in override else "cnn"
    default = composed(f"model={model}")
    assert key not in determining(default)
    run_in(tmp_path, f"model={model}", override, "trainer.max_epochs=1", "optimizer=adamw")
    state = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)["state_dict"]
    assert sum(tensor.numel() for tensor in state.values()) == parameters


@pytest.mark.parametrize("more", [[], ["mix=remix", "data/transforms=affine"]])
def test_more_epochs_go_on_from_a_finished_run_as_if_it_had_been_longer(
    run_in: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    for runs, epochs in (("both", 2), ("both", 4), ("whole", 4)):
        run_in(tmp_path / runs, "trainer.max_epochs=1", "seed=1")  # another run
        capsys.readouterr()
        run_in(tmp_path / runs, f"trainer.max_epochs={epochs}", *more)
        went_on = "goes on from" in capsys.readouterr().out
        assert went_on == (runs == "both" and epochs == 4)
    [short] = (tmp_path / "both").rglob("trainer.max_epochs=2/seed=0")
    [long] = (tmp_path / "both").rglob("trainer.max_epochs=4/seed=0")
    [whole] = (tmp_path / "whole").rglob("trainer.max_epochs=4/seed=0")
    assert result_below(short).epochs == 2
    ours, theirs = result_below(long), result_below(whole)
    assert (ours.train, ours.val, ours.test) == (theirs.train, theirs.val, theirs.test)
    assert (ours.steps, ours.config_hash) == (theirs.steps, theirs.config_hash)
    assert (long / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    curves = EventAccumulator(str(long / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("1_val/loss")] == [0, 1, 2, 3]


@pytest.mark.parametrize("other", ["optimizer.lr=0.1", "scheduler=cosine"])
def test_more_epochs_of_another_run_begin_anew(
    run_in: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    run_in(tmp_path, "trainer.max_epochs=1", *([other] if "=cosine" in other else []))
    run_in(tmp_path, "trainer.max_epochs=2", other)
    assert "goes on from" not in capsys.readouterr().out


def test_a_checkpoint_alone_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"load_run"):
        Classifier.load_from_checkpoint("last.ckpt")


MISTAKES = {  # what is written, and how its error begins
    "model=null": "model=null: must be the name of a choice",
    "trainer=[{a:1}]": "trainer=[{a:1}]: must be the name of a choice",
    "metrics=0": "metrics=0: must be the name of a choice",
    "+@=1": "+@=1: must be the name of a choice",
    "loss=[plain,weighted]": "loss: must be one choice",
    "~data._target_": "data._target_: Field required",
    "model._target_=3": "model._target_: Input should be a valid string",
    "model._target_=torch.nn.Softmax2d": "model: ",
    "model._target_=builtins.dict": "model: must be a Module, is a dict",
    "optimizer._partial_=[]": "optimizer: Instantiation: _partial_ flag must be a bool",
    "optimizer._partial_=false": "optimizer: ",
    "+model._args_=3": "model: ",
    "model.hidden_size=99999999999999999999": "model",
    "~data.copies.0": "TypeError: ",
    "threads=99999999999": "threads: Input should be less than or equal to 4096",
    "seed=1e400": "seed: Input should be",
    "data.batch_size=nan": "data.batch_size: Input should be",
    "optimizer.lr=nan": "optimizer.lr: Input should be a finite number",
    "+trainer.limit_test_batches=0.00001": "trainer.limit_test_batches: 1e-05 of 8 batches is none",
    "+trainer.accumulate_grad_batches=x": "trainer, callbacks: TypeError: ",
    "+trainer.precision=3": "trainer: ",
    "+callbacks.x=1": "callbacks.x: must be a part with its _target_, got 1",
    "+logger.x._target_=builtins.dict": "logger.x: must be a Logger, is a dict",
    "+scheduler._target_=builtins.len": "scheduler: ",
    "mix=[mixup,remix]": "mix: must be one choice, mix=name",
    "+mix._target_=builtins.dict": "mix: must be a Callable, is a dict",
    "ckpt_path=x": "ckpt_path: there is no such key; the same command goes on",
    "+ckpt_path=x": "ckpt_path: there is no such key; the same command goes on",
    "data.dir=null": "data.dir: Input",
}


@pytest.mark.parametrize(("override", "message"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, override: str, message: str
) -> None:
    runs = [] if "runs_dir" in override else [f"runs_dir={tmp_path / 'runs'}"]
    monkeypatch.setattr(sys, "argv", ["train", *SMALL, *runs, "trainer.max_epochs=1", override])
    with pytest.raises(SystemExit) as stopped:
        train.main()
    assert isinstance(stopped.value.code, str)
    assert stopped.value.code.startswith(f"error: {message}")
    assert "\n" not in stopped.value.code
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize("damage", ["{", "[]", "data: 3", "", "a: ${b"])
def test_a_damaged_config_of_a_run_is_named(run_in: Train, tmp_path: Path, damage: str) -> None:
    run_in(tmp_path, "trainer.max_epochs=1")
    next(tmp_path.rglob("result.json")).unlink()
    next(tmp_path.rglob("config.yaml")).write_text(damage)
    with pytest.raises(SystemExit, match=r"^error: runs_dir: .*config\.yaml is damaged|values of "):
        run_in(tmp_path, "trainer.max_epochs=1")
