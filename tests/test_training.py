"""One run: its folder, how it resumes, and what others read from it."""

import re
import shutil
from functools import partial
from pathlib import Path
from signal import SIGTERM, raise_signal
from typing import Any
from unittest.mock import patch

import lightning
import pandas
import pytest
import torch
from conftest import REPOSITORY, Command, composed, fitted, kill, start, wait_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mnist_imbalance
from mnist_imbalance import train
from mnist_imbalance.errors import STOPPED, ConfigError
from mnist_imbalance.records.result import read_predictions
from mnist_imbalance.training.callbacks import SeedEveryEpoch
from mnist_imbalance.training.classifier import Classifier
from mnist_imbalance.training.folder import RunFolder, code, commit, lock
from mnist_imbalance.training.run import draw_confusion, load_run

TWO = "trainer.max_epochs=2"
DROPOUT = ["model=cnn", "model._target_=unmappable_models.Dropout"]
DROPOUT += ["~model.channels", "~model.features", "~model.head", "~model.scale"]


def same_numbers(folder: RunFolder, other: RunFolder) -> bool:
    results = [run.result() for run in (folder, other)]
    names = ("train", "val", "test", "steps", "config_hash")
    epochs = [(run.path / "metrics.csv").read_bytes() for run in (folder, other)]
    ours, theirs = ([getattr(result, name) for name in names] for result in results)
    return ours == theirs and epochs[0] == epochs[1]


def state_of(checkpoint: Path) -> Any:
    return torch.load(checkpoint, weights_only=True)


def test_a_run_folder_and_its_record(tmp_path: Path) -> None:
    chosen = ("model=cnn", "data=augmented_40", "loss=weighted", "optimizer=adam")
    more = ("scheduler=cosine", "mix=mixup", "metrics=labels", "logger=[tensorboard,csv]")
    changed = ("loss.normalize=count", TWO)
    folder, result = fitted(tmp_path, *chosen, *more, *changed, "seed=3")
    path = folder.path
    folders = "/".join(sorted(["data/source=debug", *more[:3], *changed]))
    assert str(path.relative_to(tmp_path)) == f"default/{','.join(chosen)}/{folders}/seed=3"
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    hydra = {f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")}
    kept = {"checkpoints/last.ckpt", "metrics.csv", "predictions.npz", "result.json"}
    others = {name for name in files if not name.startswith(("tensorboard/", "csv/"))}
    assert others == hydra | kept and "csv/metrics.csv" in files
    metrics = pandas.read_csv(path / "metrics.csv", index_col=["stage", "epoch"])
    assert sorted(metrics.index) == [("train", 0), ("train", 1), ("val", 0), ("val", 1)]
    assert metrics.loc["val", 1]["accuracy"] == pytest.approx(result.val.accuracy, rel=1e-4)
    weights = state_of(folder.last_checkpoint)["state_dict"]["loss.weights"]
    assert weights.tolist() == [7] * 5 + [1] * 5
    named = "augmented_40, weighted, data/source=debug, mix=mixup, scheduler=cosine"
    assert result.condition == f"{named}, loss.normalize=count"
    assert (result.model, result.seed, result.epochs) == ("cnn", 3, 2)
    assert result.versions.keys() >= {"python", "torch", "torchvision", "lightning", "code"}
    assert result.versions.get("git", "") == commit()
    assert result.device.startswith("cpu, ")
    assert result.seconds["fit"] > 0 and result.seconds["test"] > 0

    loaded = Classifier.load_from_checkpoint(folder.last_checkpoint).eval()
    run = mnist_imbalance.load_run(path)
    images, labels = run.data.test
    with torch.inference_mode():
        logits = [classifier(images / 255) for classifier in (loaded, run.classifier)]
    assert torch.equal(*logits) and run.result == result and run.config.loss.minority_weight == 7
    assert loaded.groups == result.groups and loaded.metrics.keys() == result.test.metrics.keys()
    predicted = (read_predictions(path) or {})["test"]
    assert logits[0].argmax(dim=1).tolist() == predicted.tolist()
    pairs = torch.bincount(10 * labels + torch.from_numpy(predicted), minlength=100)
    assert pairs.view(10, 10).tolist() == result.test.confusion

    events = EventAccumulator(str(path / "tensorboard")).Reload()
    assert events.Tags()["images"] == ["test/confusion"]
    for curve in ("train/loss", "val/accuracy", "val/accuracy_0_4", "val_per_label/9"):
        assert [point.step for point in events.Scalars(curve)][:2] == [0, 1]
    assert events.Scalars("test/accuracy")[0].value == pytest.approx(result.test.accuracy)
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    assert values["condition"].string_value == result.condition
    assert values["loss.minority_weight"].number_value == 7
    [axes] = draw_confusion([[3, 1, 0], [0, 0, 0], [1, 0, 999]]).axes
    texts = [int(text.get_text()) for text in axes.texts]
    assert texts == [75, 25, 0, 0, 0, 0, 0, 0, 100]


def test_a_finished_run_is_only_read(tmp_path: Path) -> None:
    folder, result = fitted(tmp_path, TWO)
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    assert fitted(tmp_path, TWO, "threads=2", "logger=none")[1] == result
    assert before == {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    with lock(folder.path), pytest.raises(ConfigError, match="another process is at work in"):
        fitted(tmp_path, TWO)
    task = ["data/source=debug", "trainer=cpu", TWO, "data.batch_size=64"]
    for file in (folder.result_file, tmp_path / "result.json"):  # finished, and only begun
        with pytest.raises(ConfigError, match=r"a run with other values of data\.batch_size"):
            folder.result_of(composed(*task))
        file.rename(tmp_path / "result.json")
    shutil.copy(tmp_path / "result.json", folder.result_file)
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


def test_a_killed_run_resumes_and_ends_alike(tmp_path: Path) -> None:
    overrides = [*DROPOUT, "data=augmented_40", "trainer.max_epochs=30"]
    short = ["data/source=debug", "trainer=cpu", f"runs_dir={tmp_path / 'killed'}"]
    process = start("train", *short, *overrides)
    [checkpoint] = wait_until(lambda: [*tmp_path.rglob("last.ckpt")], process)
    kill(process)
    killed = RunFolder(checkpoint.parents[1])
    assert 1 <= killed.epochs_done() < 30
    fitted(tmp_path / "killed", *overrides)
    whole, _ = fitted(tmp_path / "whole", *overrides)
    assert same_numbers(killed, whole)
    files = (killed.path / "tensorboard").glob("events*")  # of one second, they have no order
    curves = [EventAccumulator(str(file)).Reload() for file in files]
    read = [own for own in curves if "val/loss" in own.Tags()["scalars"]]
    assert {*range(30)} <= {point.step for own in read for point in own.Scalars("val/loss")}


BEST = "callbacks=checkpoint_best trainer.test_with=best"
ENDS = {  # overrides → the last epoch's number
    TWO: 2,
    "trainer.max_steps=10 scheduler=cosine trainer.max_epochs=4": 3,  # 4 batches an epoch
    "trainer.max_steps=10 scheduler=cosine trainer.max_epochs=-1": 3,
    "callbacks=early_stopping callbacks.early_stopping.patience=1 optimizer.lr=0.1": None,
    f"{BEST} trainer.max_epochs=4 optimizer=adam optimizer.lr=0.01": 4,
    f"mix=remix data/transforms=affine scheduler=warmup {TWO}": 2,
    f"model=resnet data/augment=crop_flip {TWO}": 2,
}


@pytest.mark.parametrize(("words", "epochs"), ENDS.items(), ids=list(ENDS))
def test_a_stopped_run_ends_alike(tmp_path: Path, words: str, epochs: int | None) -> None:
    overrides = words.split()
    whole, result = fitted(tmp_path / "whole", *overrides)
    assert result.epochs == epochs or 1 < result.epochs < 50
    with pytest.raises(ConfigError, match=r"^trainer.max_time: stopped after 1 of -?\d+ epochs"):
        fitted(tmp_path / "cut", "+trainer.max_time={milliseconds: 1}", *overrides)
    cut, _ = fitted(tmp_path / "cut", *overrides)
    assert same_numbers(cut, whole)
    cut.result_file.unlink()
    saved = cut.last_checkpoint.stat().st_mtime_ns
    fitted(tmp_path / "cut", *overrides)
    assert same_numbers(cut, whole)
    assert cut.last_checkpoint.stat().st_mtime_ns == saved  # only scored
    for best in cut.last_checkpoint.parent.glob("best.ckpt"):
        curve = pandas.read_csv(cut.path / "metrics.csv").query("stage == 'val'")["accuracy"]
        assert state_of(best)["epoch"] == curve.argmax()
        assert result.val.accuracy == pytest.approx(curve.max(), abs=1e-4)


def test_a_posthoc_takes_a_training_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ("model=lstm_no_relu", TWO, "optimizer=adam")
    plain, _ = fitted(tmp_path / "both", *other)
    (tmp_path / "both" / "damaged").mkdir()
    (tmp_path / "both" / "damaged" / "result.json").write_text("{")
    taken, _ = fitted(tmp_path / "both", *other, "posthoc=temperature")
    assert f"training taken from {plain.path}" in capsys.readouterr().out
    alone, _ = fitted(tmp_path / "alone", *other, "posthoc=temperature")
    assert same_numbers(taken, alone)
    curves = EventAccumulator(str(taken.path / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("val/loss")][:2] == [0, 1]
    again = load_run(taken.path)
    predictions = read_predictions(taken.path)
    with torch.inference_mode():
        predicted = again.classifier(again.data.test[0] / 255).argmax(dim=1)
    assert predictions and predicted.tolist() == predictions["test"].tolist()


def test_a_checkpoint_that_cannot_be_resumed_is_named(tmp_path: Path) -> None:
    folder, _ = fitted(tmp_path, TWO)
    folder.result_file.unlink()
    state = state_of(folder.last_checkpoint)
    origin = state["callbacks"]["Origin"]
    for key in ("data", "code"):
        callbacks = state["callbacks"] | {"Origin": origin | {key: "another"}}
        torch.save(state | {"callbacks": callbacks}, folder.last_checkpoint)
        with pytest.raises(ConfigError, match=rf"^runs_dir: this run was begun with other {key}"):
            fitted(tmp_path, TWO)
    torch.save(state | {"config_hash": "another"}, folder.last_checkpoint)
    with pytest.raises(ConfigError, match=r"^runs_dir: .*last\.ckpt is of another run; "):
        fitted(tmp_path, TWO)
    folder.last_checkpoint.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"^runs_dir: .*last\.ckpt is damaged; "):
        fitted(tmp_path, TWO)
    folder.last_checkpoint.unlink()
    with pytest.raises(ConfigError, match=r"^runs_dir: .*last\.ckpt is missing"):
        folder.checkpoint()


def test_the_checksum_covers_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = shutil.copytree(REPOSITORY / "mnist_imbalance", tmp_path / "copy")
    monkeypatch.setattr("mnist_imbalance.training.folder.PACKAGE", package)
    config = composed()
    known = {code(config)}
    for name in ("models/cnn.py", "sweeps/batched.py", "sweeps/stacked.py", "train.py"):
        (package / name).write_text("# another")
        known.add(code(config))
    assert len(known) == 4  # with train.py as without
    (tmp_path / "own_loss.py").write_text(
        "from torch.nn import CrossEntropyLoss as C\nclass Own(C): ..."
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = composed("loss._target_=own_loss.Own")
    known.add(code(config))
    (tmp_path / "own_loss.py").write_text("# another")
    assert len(known | {code(config)}) == 6


def test_command_line(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["data/source=debug", "trainer=cpu", "debug=limit", "+trainer.profiler=simple"]
    given.append(f"runs_dir={tmp_path}")
    stopping = patch.object(SeedEveryEpoch, "on_train_epoch_end", lambda *_: raise_signal(SIGTERM))
    with stopping, pytest.raises(SystemExit, match=STOPPED):
        command(train.main, *given)
    assert [*tmp_path.rglob("last.ckpt")] and not [*tmp_path.rglob("result.json")]
    printed = command(train.main, *given)
    assert "Epoch 2: " in printed and "val/accuracy=" in printed and "v_num" not in printed
    assert "run_training_batch" in printed  # the profile
    assert f"curves: tensorboard --logdir {tmp_path}" in printed
    assert "resumes after epoch 1" in printed
    assert "accuracy %" in printed and "5-9" in printed
    assert "finished before, nothing trained" in command(train.main, *given)
    shown = command(train.main, "--help")
    assert "data=imbalanced, one of augmented_100, augmented_40, augmented_original" in shown
    assert "of the initial weights" in shown


def test_overfitting_learns_by_heart(tmp_path: Path) -> None:
    _, result = fitted(tmp_path, "debug=overfit", "model=cnn", "trainer.max_epochs=15")
    assert result.train.loss < 0.5


RESNETS = ["mix=remix", "posthoc=crt posthoc.steps=20", "posthoc=logit_adjustment"]
RESNETS.append("loss=ldam model.head=cosine")


@pytest.mark.parametrize("words", RESNETS)
def test_running_statistics_stay_as_training_left_them(tmp_path: Path, words: str) -> None:
    short = ("data/source=digits", "model=resnet", "model.width=4", "trainer.max_epochs=3")
    folder, result = fitted(tmp_path, *short, "optimizer=adam", "optimizer.lr=0.01", *words.split())
    assert result.train.accuracy > 0.3
    trained = state_of(folder.last_checkpoint)["state_dict"]
    after = load_run(folder.path).classifier.model.state_dict()
    statistics = {name: own for name, own in trained.items() if "running" in name}
    assert len(statistics) == 14
    for name, values in statistics.items():
        [found] = [own for key, own in after.items() if name.endswith(key.removeprefix("model."))]
        assert torch.equal(found, values)


@pytest.mark.slow
def test_mlflow_and_wandb_show_a_run_each(tmp_path: Path) -> None:
    trackers = ("logger=[mlflow,wandb]", "trainer.max_epochs=1")
    folders = [fitted(tmp_path, *trackers, f"seed={seed}") for seed in (1, 2)]
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


# a Trainer of one's own

IMAGES = torch.eye(10).repeat(3, 1)[:25].reshape(25, 1, 1, 10)
LABELS = torch.arange(25) % 10
FROZEN = partial(torch.optim.SGD, lr=0)
QUIET: Any = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)


def identity() -> nn.Module:
    """Logits that are the pixels: always right."""
    layer = nn.Linear(10, 10, bias=False)
    nn.init.eye_(layer.weight)
    return nn.Sequential(nn.Flatten(), layer)


def fit(classifier: Classifier, max_epochs: int = 1) -> set[str]:
    """Train and test; return the names of all that was logged in training."""
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=max_epochs, **QUIET)
    batches = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8)
    trainer.fit(classifier, batches, batches)
    names = {*trainer.callback_metrics}
    trainer.test(classifier, batches, verbose=False)
    return names


def test_all_stages_are_scored_over_all_their_images_and_logged() -> None:
    groups = {"0-4": range(5), "5-9": range(5, 10), "all": range(10)}
    metrics = {"always_half": lambda logits, labels: 0.5}
    classifier = Classifier(identity(), optimizer=FROZEN, groups=groups, metrics=metrics)
    names = fit(classifier)
    loss = nn.functional.cross_entropy(IMAGES.flatten(1), LABELS).item()
    for stage in ("train", "val", "test"):
        scores = classifier.scores[stage]
        assert scores.confusion == torch.diag(LABELS.bincount()).tolist()
        assert scores.positive == LABELS.bincount().tolist()  # no pixel is negative
        assert scores.loss == pytest.approx(loss)  # over 25 images, not the mean of 4 batches'
        assert scores.metrics == {"always_half": 0.5}
    own = ("/loss", "/accuracy", "/accuracy_0_4", "/accuracy_5_9", "/always_half")
    logged = {*own, *(f"_per_label/{label}" for label in range(10))}
    assert names == {"step"} | {f"{stage}{name}" for stage in ("train", "val") for name in logged}


def test_a_loss_hears_what_fraction_of_training_is_done() -> None:
    heard: list[float] = []
    loss: Any = nn.CrossEntropyLoss()
    loss.start_epoch = heard.append
    fit(Classifier(identity(), loss, FROZEN), max_epochs=4)
    assert heard == [0, 0.25, 0.5, 0.75]


def test_the_notebook_of_the_readme() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(import lightning.*?)```", readme, re.DOTALL)
    names: dict[str, Any] = {}
    short = "max_epochs=1, limit_train_batches=5, enable_checkpointing=False"
    exec(code.replace("max_epochs=5", short), names)
    assert 0 < names["classifier"].scores["test"].accuracy < 1
