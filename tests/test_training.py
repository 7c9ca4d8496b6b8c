"""One run: its folder, how it resumes, and what others read from it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from conftest import REPOSITORY, composed, fitted, wait_until
from filelock import FileLock
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import mnist_imbalance
from mnist_imbalance import train
from mnist_imbalance.data.sources import read_torchvision
from mnist_imbalance.errors import STOPPED, ConfigError
from mnist_imbalance.records.identity import determining
from mnist_imbalance.records.result import read_predictions
from mnist_imbalance.training.classifier import Classifier
from mnist_imbalance.training.folder import RunFolder, commit
from mnist_imbalance.training.run import load_run
from mnist_imbalance.training.tensorboard import draw_confusion

COMMAND = [sys.executable, "-m", "mnist_imbalance.train"]
TWO = "trainer.max_epochs=2"
DROPOUT = ["model=cnn", "model._target_=unmappable_models.Dropout"]
DROPOUT += ["~model.channels", "~model.features", "~model.head", "~model.scale"]


def same_numbers(folder: RunFolder, other: RunFolder) -> bool:
    results = [run.result() for run in (folder, other)]
    assert results[0] and results[1]
    return (
        all(
            getattr(results[0], name) == getattr(results[1], name)
            for name in ("train", "val", "test", "steps", "config_hash")
        )
        and (folder.path / "metrics.csv").read_bytes() == (other.path / "metrics.csv").read_bytes()
    )


def state_of(checkpoint: Path) -> Any:
    return torch.load(checkpoint, weights_only=True)


def test_a_run_folder_and_its_record(tmp_path: Path) -> None:
    loss = ("loss=weighted", "loss.normalize=count")
    folder, result = fitted(tmp_path, TWO, "data=augmented_40", *loss, "seed=3")
    path = folder.path
    chosen = "default/model=lstm,data=augmented_40,loss=weighted,optimizer=sgd"
    changed = "data/source=debug/loss.normalize=count/trainer.max_epochs=2"
    assert str(path.relative_to(tmp_path)) == f"{chosen}/{changed}/seed=3"
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    hydra = {f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")}
    kept = {"checkpoints/last.ckpt", "metrics.csv", "predictions.npz", "result.json"}
    assert {name for name in files if not name.startswith("tensorboard/")} == hydra | kept
    metrics = pandas.read_csv(path / "metrics.csv", index_col=["stage", "epoch"])
    assert sorted(metrics.index) == [("train", 0), ("train", 1), ("val", 0), ("val", 1)]
    assert metrics.loc["val", 1]["accuracy"] == pytest.approx(result.val.accuracy, rel=1e-4)
    assert (
        state_of(folder.last_checkpoint)["state_dict"]["loss.weights"].tolist() == [7] * 5 + [1] * 5
    )
    limits = "augmented_40, weighted, data/source=debug, loss.normalize=count"
    assert result.condition == limits
    assert (result.model, result.seed, result.epochs) == ("lstm", 3, 2)
    assert result.versions.keys() >= {"python", "torch", "torchvision", "lightning", "code"}
    assert result.versions.get("git", "") == commit()
    assert result.device.startswith("cpu, ")
    assert result.seconds["fit"] > 0 and result.seconds["test"] > 0


def test_predictions_are_the_confusion_matrix_image_by_image(tmp_path: Path) -> None:
    folder, result = fitted(tmp_path, TWO, "data/source=mnist", "+trainer.limit_train_batches=3")
    predictions = read_predictions(folder.path)
    assert predictions is not None
    _, labels = read_torchvision(REPOSITORY / "data", "MNIST").test
    pairs = torch.bincount(10 * labels + torch.from_numpy(predictions["test"]), minlength=100)
    assert pairs.view(10, 10).tolist() == result.test.confusion
    assert len(predictions["val"]) == 5000
    assert "trainer.limit_train_batches=3" in result.condition


def test_a_finished_run_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, result = fitted(tmp_path, TWO)
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    assert fitted(tmp_path, TWO, "threads=2", "logger=csv")[1] == result
    assert before == {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    raw = tmp_path / "other" / "MNIST" / "raw"
    shutil.copytree(REPOSITORY / "data/MNIST/raw", raw)
    moved = f"data.dir={raw.parents[1]}"
    assert fitted(tmp_path, TWO, moved)[1] == result  # the same images elsewhere
    labels = raw / "train-labels-idx1-ubyte"
    whole = bytearray(labels.read_bytes())
    whole[8] = (whole[8] + 1) % 10  # of the first image
    labels.write_bytes(whole)
    with pytest.raises(ConfigError, match=r"^data\.dir: .* holds a finished run of other images"):
        fitted(tmp_path, TWO, moved)


def test_a_folder_is_one_runs(tmp_path: Path) -> None:
    folder, _ = fitted(tmp_path, TWO)
    task = ["data/source=debug", "trainer=cpu", TWO, "data.batch_size=64"]
    with pytest.raises(ConfigError, match=r"holds a run with other values of data\.batch_size"):
        folder.result_of(composed(*task))
    with (
        FileLock(folder.path / ".lock"),
        pytest.raises(ConfigError, match="another process is at work"),
    ):
        fitted(tmp_path, TWO)


def test_a_killed_run_resumes_and_ends_alike(tmp_path: Path) -> None:
    overrides = [*DROPOUT, "data=augmented_40", "trainer.max_epochs=60"]
    few = ["data/source=debug", "trainer=cpu"]
    killed = [*COMMAND, *few, *overrides, f"runs_dir={tmp_path / 'killed'}"]
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = {**os.environ, "PYTHONPATH": path}

    def begin(after: int) -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            killed, env=environment, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
        )

        def saved() -> list[Path]:
            files = tmp_path.rglob("last.ckpt")
            return [file for file in files if file.stat().st_mtime_ns > after]

        return process, wait_until(saved, process)[0]

    process, checkpoint = begin(0)
    process.kill()
    process.communicate()
    folder = RunFolder(checkpoint.parents[1])
    after_kill = folder.epochs_done()
    assert 1 <= after_kill < 60
    process, _ = begin(checkpoint.stat().st_mtime_ns)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert (process.returncode, errors.splitlines()[-1]) == (1, STOPPED)
    assert after_kill < folder.epochs_done() < 60
    assert not folder.result_file.exists()
    fitted(tmp_path / "killed", *overrides)
    whole, _ = fitted(tmp_path / "whole", *overrides)
    assert same_numbers(folder, whole)
    curves = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("val/loss")][:60] == list(range(60))


STEPS = ("trainer.max_steps=10", "trainer.max_epochs=4", "scheduler=cosine")  # 4 batches an epoch
ENDS = {  # how a run ends, and its last epoch's number
    "epochs": ((TWO,), 2),
    "within an epoch": ((*STEPS, "trainer.max_epochs=-1"), 3),
    "by a callback": (
        ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=0.1"),
        None,
    ),
    "with schedules": (("mix=remix", "data/transforms=affine", "scheduler=warmup", TWO), 2),
}


@pytest.mark.parametrize(("overrides", "epochs"), ENDS.values(), ids=ENDS)
def test_a_run_killed_before_its_result_is_only_scored(
    tmp_path: Path, overrides: tuple[str, ...], epochs: int | None
) -> None:
    whole, result = fitted(tmp_path / "whole", *overrides, "logger=csv")
    assert result.epochs == epochs or 1 < result.epochs < 50
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    killed = RunFolder(tmp_path / "killed" / whole.path.relative_to(tmp_path / "whole"))
    killed.result_file.unlink()
    saved = killed.last_checkpoint.stat().st_mtime_ns
    fitted(tmp_path / "killed", *overrides, "logger=csv")
    assert same_numbers(killed, whole)
    assert killed.last_checkpoint.stat().st_mtime_ns == saved
    logged = [pandas.read_csv(run.path / "csv" / "metrics.csv") for run in (whole, killed)]
    for column in ("train/loss", "val/loss", "test/accuracy"):
        rows = [table.set_index("step")[column].dropna() for table in logged]
        pandas.testing.assert_series_equal(*rows, rtol=1e-5)


@pytest.mark.parametrize(
    "overrides", [STEPS, ("callbacks=checkpoint_best", "trainer.max_epochs=3")]
)
def test_a_run_out_of_time_resumes(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    whole, _ = fitted(tmp_path / "whole", *overrides)
    with pytest.raises(ConfigError, match=r"stopped after 1 of . epochs, so there is no result"):
        fitted(tmp_path / "cut", "+trainer.max_time={milliseconds: 1}", *overrides)
    cut, _ = fitted(tmp_path / "cut", *overrides)
    assert same_numbers(cut, whole)


def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path: Path) -> None:
    best = ("callbacks=checkpoint_best", "optimizer=adam", "optimizer.lr=0.1")
    folder, _ = fitted(tmp_path, *best, "trainer.max_epochs=4")
    checkpoints = folder.last_checkpoint.parent
    assert {file.name for file in checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
    curve = pandas.read_csv(folder.path / "metrics.csv").query("stage == 'val'")["accuracy"]
    assert state_of(checkpoints / "best.ckpt")["epoch"] == curve.argmax()


def test_a_run_that_differs_in_posthoc_takes_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ("model=lstm_no_relu", TWO, "optimizer=adam")
    plain, _ = fitted(tmp_path / "both", *other)
    taken, result = fitted(tmp_path / "both", *other, "posthoc=temperature")
    assert f"training taken from {plain.path}" in capsys.readouterr().out
    alone, _ = fitted(tmp_path / "alone", *other, "posthoc=temperature")
    assert same_numbers(taken, alone)
    assert taken.last_checkpoint.read_bytes() == plain.last_checkpoint.read_bytes()
    curves = EventAccumulator(str(taken.path / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("val/loss")][:2] == [0, 1]
    again = load_run(taken.path)
    predictions = read_predictions(taken.path)
    with torch.inference_mode():
        predicted = again.classifier(again.data.test[0] / 255).argmax(dim=1)
    assert predictions and predicted.tolist() == predictions["test"].tolist()
    assert again.result == result


@pytest.mark.parametrize("damage", ["cut", "code", "data", "no optimizer"])
def test_a_checkpoint_that_cannot_be_resumed_is_named(tmp_path: Path, damage: str) -> None:
    folder, _ = fitted(tmp_path, TWO)
    folder.result_file.unlink()
    state = state_of(folder.last_checkpoint)
    if damage == "cut":
        folder.last_checkpoint.write_bytes(folder.last_checkpoint.read_bytes()[:20_000])
    else:
        state["callbacks"]["Origin"][damage] = "another"
        state["optimizer_states"] = [] if damage == "no optimizer" else state["optimizer_states"]
        torch.save(state, folder.last_checkpoint)
    with pytest.raises(ConfigError, match=r"^runs_dir: .*(damaged|resume|begun with other)"):
        fitted(tmp_path, TWO)
    assert not folder.result_file.exists()


@pytest.mark.parametrize("overrides", [["debug=fdr"], ["+trainer.fast_dev_run=true"]])
def test_a_dry_run_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
) -> None:
    given = ["data/source=debug", "trainer=cpu", f"runs_dir={tmp_path}", *overrides]
    monkeypatch.setattr(sys, "argv", ["train", *given])
    train.main()
    assert "a dry run" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["data/source=debug", "trainer=cpu", "debug=limit", f"runs_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["train", *given, "+trainer.profiler=simple"])
    train.main()
    printed = capsys.readouterr().out
    assert "Epoch 2: " in printed and "val/accuracy=" in printed and "v_num" not in printed
    assert "run_training_batch" in printed  # the profile
    assert f"TensorBoard: tensorboard --logdir {tmp_path}" in printed
    assert "accuracy %" in printed and "5-9" in printed
    train.main()
    assert "finished before, nothing trained" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["train", "--help"])
    train.main()
    shown = capsys.readouterr().out
    assert "data: augmented_100, augmented_40, augmented_original, duplicated_100" in shown
    assert not [line for line in shown.splitlines() if line.startswith("study: ")]


def test_overfitting_learns_by_heart(tmp_path: Path) -> None:
    _, result = fitted(tmp_path, "debug=overfit", "model=cnn", "trainer.max_epochs=30")
    assert result.train.loss < 0.1


def test_loggers_change_no_run(tmp_path: Path) -> None:
    folder, _ = fitted(tmp_path, "logger=[tensorboard,csv]", "trainer.max_epochs=1")
    assert {"csv", "tensorboard"} < {path.name for path in folder.path.iterdir()}
    assert determining(composed("logger=none")) == determining(composed())
    fitted(tmp_path, "logger=none", "trainer.max_epochs=1", "seed=1")


def test_what_tensorboard_shows(tmp_path: Path) -> None:
    loss = ("loss=weighted", "loss.minority_weight=3")
    folder, result = fitted(tmp_path, TWO, *loss)
    events = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    assert set(events.Tags()["images"]) == {"test/confusion", "data/copies"}
    for curve in ("train/loss", "val/accuracy", "val/accuracy_0_4", "val_per_label/9"):
        assert [point.step for point in events.Scalars(curve)][:2] == [0, 1]
    assert events.Scalars("test/accuracy")[0].value == pytest.approx(result.test.accuracy)
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    chosen = HParamsPluginData.FromString(content).session_start_info.hparams
    assert chosen["condition"].string_value == result.condition
    assert chosen["loss.minority_weight"].number_value == 3
    (axes,) = draw_confusion([[3, 1, 0], [0, 0, 0], [1, 0, 999]]).axes
    assert [text.get_text() for text in axes.texts] == [
        "75",
        "25",
        "0",
        "0",
        "0",
        "0",
        "0",
        "0",
        "100",
    ]


@pytest.mark.slow
def test_mlflow_and_wandb_show_a_run_each(tmp_path: Path) -> None:
    folders = [
        fitted(tmp_path, "logger=[mlflow,wandb]", "trainer.max_epochs=1", f"seed={seed}")
        for seed in (1, 2)
    ]
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("mnist_imbalance")
    assert experiment
    shown = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(shown) == 2
    for folder, result in folders:
        run = shown[str(folder.path.relative_to(tmp_path))]
        assert run.info.status == "FINISHED"
        assert run.data.params["loss"] == "plain"
        assert run.data.metrics["test/accuracy"] == pytest.approx(result.test.accuracy)
        assert len([*folder.path.glob("wandb/offline-run-*/*.wandb")]) == 1


@pytest.mark.parametrize("model", ["lstm", "cnn"])
def test_lightning_loads_a_checkpoint(tmp_path: Path, model: str) -> None:
    parts = ("loss=weighted", "optimizer=adam", "scheduler=cosine", "mix=mixup", "metrics=labels")
    folder, result = fitted(tmp_path, f"model={model}", *parts, TWO)
    loaded = Classifier.load_from_checkpoint(folder.last_checkpoint).eval()
    run = mnist_imbalance.load_run(folder.path)
    images, labels = run.data.test
    with torch.inference_mode():
        logits = [classifier(images / 255) for classifier in (loaded, run.classifier)]
    assert torch.equal(*logits)
    assert (logits[0].argmax(dim=1) == labels).float().mean().item() == pytest.approx(
        result.test.accuracy
    )
    assert loaded.groups == result.groups and loaded.metrics.keys() == result.test.metrics.keys()
    assert run.config.loss.minority_weight == 7


def test_other_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run folder with a checkpoint, .*config\.yaml is"):
        load_run(tmp_path / "nothing")
    folder, _ = fitted(tmp_path, "trainer.max_epochs=1")
    config = OmegaConf.load(folder.config_file)
    del config.data["minority"]
    OmegaConf.save(config, folder.config_file)
    with pytest.raises(ConfigError, match="an earlier version's"):
        load_run(folder.path)
    folder.last_checkpoint.unlink()
    with pytest.raises(ConfigError, match=r"no run folder with a checkpoint, .*last\.ckpt is"):
        load_run(folder.path)


def test_the_notebook_of_the_readme() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(import lightning.*?)```", readme, re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(
        found[1].replace(
            "max_epochs=5", "max_epochs=1, limit_train_batches=5, enable_checkpointing=False"
        ),
        names,
    )
    assert 0 < names["classifier"].scores["test"].accuracy < 1
