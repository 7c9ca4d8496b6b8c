"""The command line, over real images."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pandas
import pytest
import torch
from conftest import REPOSITORY, end_by, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_imbalance import train
from mnist_imbalance.data.sources import load
from mnist_imbalance.runs import Result, RunFolder

COMMAND = [sys.executable, "-m", "mnist_imbalance.train"]
SHORT = ["trainer.max_epochs=2", "+trainer.limit_train_batches=30", "+trainer.limit_val_batches=4"]
FEW = ["trainer.max_epochs=2", "data/source=debug"]  # where any images do
Train = Callable[..., Path]


def result_in(folder: Path) -> Result:
    result = RunFolder(folder).result()
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("model", "epochs", "data"), [("lstm", 3, "imbalanced"), ("cnn", 1, "augmented_40")]
)
def test_a_short_training_learns(train_here: Train, model: str, epochs: int, data: str) -> None:
    folder = train_here(
        f"model={model}", f"data={data}", "optimizer=adam", f"trainer.max_epochs={epochs}"
    )
    result = result_in(folder)
    assert result.test.accuracy > 0.6
    assert (result.model, result.data, result.loss, result.optimizer) == (
        model, data, "plain", "adam",
    )  # fmt: skip
    test_counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert [sum(row) for row in result.test.confusion] == test_counts
    assert [sum(row) for row in result.val.confusion] == [500] * 10
    assert result.epochs == epochs
    assert result.seconds.fit > 0
    assert result.seconds.test > 0


def test_what_a_run_leaves(train_here: Train, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train_here("data=augmented_40", "loss=per_label", "seed=3", *SHORT)
    printed = capsys.readouterr().out
    assert "tensorboard --logdir" in printed
    assert str(folder) in printed.replace("\n", "")
    assert folder.name == "seed=3"
    assert folder.parents[3].name == "model=lstm,data=augmented_40,loss=per_label,optimizer=sgd"
    assert folder.parents[4].name == "default"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        ".hydra/config.yaml",
        ".hydra/hydra.yaml",
        ".hydra/overrides.yaml",
        "checkpoints/last.ckpt",
        "metrics.csv",
        "result.json",
    } <= files
    metrics = pandas.read_csv(folder / "metrics.csv", index_col=["stage", "epoch"])
    assert sorted(metrics.index) == [("train", 0), ("train", 1), ("val", 0), ("val", 1)]
    assert metrics.loc["val", 1]["accuracy"] == pytest.approx(
        result_in(folder).val.accuracy, rel=1e-4
    )
    assert not [name for name in files if name.endswith(".part")]
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["loss.weights"].tolist() == [6, 7, 7, 7, 5, 1, 1, 1, 1, 1]

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    curves = [f"{stage}{name}" for stage in ("3_train", "1_val") for name in ("/loss", "/accuracy")]
    curves += ["3_train/accuracy_0_4", "1_val/accuracy_5_9"]
    curves += ["4_train_per_label/0", "2_val_per_label/9"]
    for curve in curves:
        assert [point.step for point in events.Scalars(curve)] == [0, 1]
    assert {"5_test/confusion", "6_data/copies"} == set(events.Tags()["images"])
    assert [point.value for point in events.Scalars("5_test/accuracy")] == pytest.approx(
        [result_in(folder).test.accuracy]
    )
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_the_same_command_gives_the_same_result(train_here: Train) -> None:
    folder = train_here("data=augmented_40", *SHORT)
    first = result_in(folder)
    shutil.rmtree(folder)
    second = result_in(train_here("data=augmented_40", *SHORT))
    assert first.test == second.test
    assert first.val == second.val
    assert first.config_hash == second.config_hash


def test_a_finished_run_is_not_trained_again(
    train_here: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train_here(*FEW)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()
    train_here(*FEW)
    assert "finished before, nothing trained" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_run_killed_before_its_result_is_only_scored_again(train_here: Train) -> None:
    folder = train_here(*SHORT)
    first = result_in(folder)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    written = checkpoint.stat().st_mtime_ns
    (folder / "result.json").unlink()
    train_here(*SHORT)
    assert checkpoint.stat().st_mtime_ns == written
    second = result_in(folder)
    assert second.test == first.test
    assert second.val == first.val
    assert second.train == first.train
    assert second.seconds.fit == pytest.approx(first.seconds.fit, rel=0.5)


def flip_a_bit(whole: bytes) -> bytes:
    """Change the largest tensor's first weight a little."""
    with ZipFile(io.BytesIO(whole)) as archive:
        largest = max(archive.infolist(), key=lambda file: file.file_size)
        tensor = archive.read(largest)
    place = whole.index(tensor)
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "a bit", "another", "no optimizer"])
def test_a_damaged_checkpoint_is_named(train_here: Train, damage: str) -> None:
    folder = train_here(*FEW)
    (folder / "result.json").unlink()
    checkpoint = folder / "checkpoints" / "last.ckpt"
    whole = checkpoint.read_bytes()
    contents = {"cut": whole[:20_000], "empty": b"", "text": b"text", "a bit": flip_a_bit(whole)}
    state = torch.load(checkpoint, weights_only=True)
    checkpoint.write_bytes(contents.get(damage, b""))
    if damage == "another":
        torch.save({"epoch": 0}, checkpoint)
    if damage == "no optimizer":
        torch.save(state | {"optimizer_states": []}, checkpoint)
    with pytest.raises(SystemExit, match=r"^error: runs_dir: .*last\.ckpt is .*; delete it"):
        train_here(*FEW)


@pytest.mark.parametrize("what", ["code", "data"])
def test_a_run_goes_on_only_with_what_it_began_with(train_here: Train, what: str) -> None:
    folder = train_here(*FEW)
    (folder / "result.json").unlink()
    checkpoint = folder / "checkpoints" / "last.ckpt"
    state = torch.load(checkpoint, weights_only=True)
    [origin] = [of for of in state["callbacks"].values() if isinstance(of, dict) and what in of]
    origin[what] = "another"
    torch.save(state, checkpoint)
    with pytest.raises(
        SystemExit, match=rf"^error: runs_dir: this run was begun with other {what}"
    ):
        train_here(*FEW)
    assert not (folder / "result.json").exists()


def test_a_finished_run_of_other_images_is_not_taken_for_this_one(
    train_here: Train, tmp_path: Path
) -> None:
    raw = tmp_path / "other" / "MNIST" / "raw"
    shutil.copytree(REPOSITORY / "data/MNIST/raw", raw)
    train_here(*SHORT)
    train_here(*SHORT, f"data.dir={raw.parents[1]}")  # the same images elsewhere: nothing to do
    labels = raw / "train-labels-idx1-ubyte"
    whole = bytearray(labels.read_bytes())
    whole[8] = (whole[8] + 1) % 10  # of the first image
    labels.write_bytes(whole)
    with pytest.raises(SystemExit, match=r"^error: data\.dir: .* holds a finished run of other im"):
        train_here(*SHORT, f"data.dir={raw.parents[1]}")


def test_lightnings_environment_does_not_limit_a_run(
    train_here: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PL_TRAINER_LIMIT_TEST_BATCHES", "2")
    with pytest.raises(SystemExit, match=r"^error: trainer: .*PL_TRAINER_LIMIT_TEST_BATCHES"):
        train_here(*SHORT)
    assert not list(tmp_path.rglob("result.json"))


def test_a_killed_run_goes_on_and_ends_alike(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    overrides = [
        "data=augmented_40",
        "data/source=debug",
        "model=cnn",
        "model._target_=unmappable_models.Dropout",
    ]
    overrides += ["~model.channels", "~model.features", "~model.head"]
    overrides += ["trainer.max_epochs=60"]

    def start(runs: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *overrides, f"runs_dir={tmp_path / runs}"],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")},
            stderr=subprocess.PIPE,
            text=True,
        )

    def checkpoint_after(process: subprocess.Popen[str], time_ns: int) -> Path:
        deadline = time.monotonic() + 120
        while True:
            for path in tmp_path.rglob("last.ckpt"):
                if path.stat().st_mtime_ns > time_ns:
                    return path
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def epochs_done(checkpoint: Path) -> int:
        epoch: int = torch.load(checkpoint, weights_only=True)["epoch"]
        return epoch + 1

    run = start("stopped")
    checkpoint = checkpoint_after(run, 0)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    folder = checkpoint.parents[1]
    assert not (folder / "result.json").exists()
    after_kill = epochs_done(checkpoint)
    assert 1 <= after_kill < 60

    run = start("stopped")
    checkpoint_after(run, checkpoint.stat().st_mtime_ns)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate()
    assert run.returncode == 1
    assert errors.endswith("stopped; the same command goes on from the last whole epoch\n")
    assert not (folder / "result.json").exists()
    assert after_kill < epochs_done(checkpoint) < 60

    for runs in ("stopped", "whole"):
        monkeypatch.setattr(sys, "argv", ["train", *overrides, f"runs_dir={tmp_path / runs}"])
        train.main()
    whole = tmp_path / "whole" / folder.relative_to(tmp_path / "stopped")
    assert result_in(folder).test == result_in(whole).test
    assert result_in(folder).val == result_in(whole).val
    assert result_in(folder).train == result_in(whole).train
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    curves = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("1_val/loss")] == list(range(60))


def test_a_parallel_sweep_outlives_a_failing_job(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"  # archives only: the jobs unpack them at once
    raw.mkdir(parents=True)
    for archive in (REPOSITORY / "data/MNIST/raw").glob("*.gz"):
        shutil.copy(archive, raw)
    sweep = subprocess.run(
        [
            *[*COMMAND, "-m", "hydra/launcher=joblib", "loss=weighted", *SHORT],
            *["loss.minority_weight=2,-1,7", f"data.dir={tmp_path / 'data'}"],
            f"runs_dir={tmp_path / 'runs'}",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert sweep.returncode == 1
    assert "2 of 3 failed: loss.minority_weight=-1" in sweep.stdout
    assert "1 of 3 jobs failed" in sweep.stderr
    assert "loss.minority_weight=-1" in sweep.stderr
    assert "loss.minority_weight: Input should be greater than 0, got -1" in sweep.stderr
    assert "Traceback" not in sweep.stderr
    assert "Warning" not in sweep.stderr
    records = sorted((tmp_path / "runs").rglob("result.json"))
    names = [f"loss.minority_weight={weight}/trainer.max_epochs=2" for weight in (2, 7)]
    assert [names[0] in str(records[0]), names[1] in str(records[1])] == [True, True]
    assert len(records) == 2
    assert not list((tmp_path / "runs").rglob("*minority_weight=-1*"))
    light, heavy = (result_in(record.parent) for record in records)
    assert light.config["loss.minority_weight"] == 2
    assert light.test != heavy.test


def test_a_parallel_sweep_leaves_no_worker_when_it_is_killed_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sweep = ["-m", "model=cnn", "seed=0,1", "trainer.max_epochs=30", f"runs_dir={tmp_path}"]
    sweep += ["+trainer.limit_train_batches=10"]
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]

    def epochs() -> int:
        return len({path.stat().st_mtime_ns for path in tmp_path.rglob("last.ckpt")} - before)

    before: set[int] = set()
    for how in (signal.SIGTERM, signal.SIGKILL):
        begun = subprocess.Popen(
            [*COMMAND, *sweep, *parallel],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_for(epochs, 2, begun)
        end_by(begun, how)
        before = {path.stat().st_mtime_ns for path in tmp_path.rglob("last.ckpt")}
    assert not list(tmp_path.rglob("result.json"))
    monkeypatch.setattr(sys, "argv", ["train", *sweep, "hydra/launcher=basic"])
    train.main()
    assert len(list(tmp_path.rglob("result.json"))) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=none"], "data: no choice none; there are augmented_100, augmented_40, augme"),
        (["data.keep=1.7"], "data.keep: Input should be a fraction above 0 and at most 1"),
        (["data.kep=1"], "Could not override 'data.kep'"),
        (["loss=weighted", "loss.minority_weight=-1"], "loss.minority_weight: Input should be gr"),
        (
            ["loss=per_label", "loss.weights=[1,1,1,1,1,1,1,1,1]"],
            "loss.weights: there must be 10, one for each",
        ),
        (["data.dir=data/MNIST/raw/train-labels-idx1-ubyte.gz"], "data.dir: no whole MNIST arch"),
        (["+loss.reduction=none"], "loss: must give one number for a batch"),
        (["+loss.label_smoothing=2"], "loss: label_smoothing must be between 0.0 and 1.0"),
        (["metrics=mcc", "metrics.mcc.task=x"], "metrics.mcc: "),
        (["data.sampler._target_=builtins.len"], "data.sampler: "),
        (["trainer.accelerator=none"], "trainer: You selected an invalid accelerator name"),
        (["seed"], "seed: "),
        (["+modle=cnn"], "modle: there is no such key"),
        (["+trainer.max_time={hour: 1}"], "trainer.max_time: "),
        (["+trainer.max_time=soon"], "trainer.max_time: "),
        (["+trainer.logger=false"], "trainer.logger: cannot be set, a run has its own"),
        (["+trainer.num_nodes=2"], "trainer.num_nodes: cannot be set, a run has its own"),
        (["experiment=normalize"], "experiment: this overlay sweeps loss.minority_weight, loss.no"),
        (["+optimizer.speed=1"], "optimizer: SGD.__init__() got an unexpected keyword argument"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    train_here: Train,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    overrides: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train_here(*overrides)
    assert isinstance(stopped.value.code, str)  # goes to stderr, exit code 1
    assert stopped.value.code.startswith(f"error: {message}")
    assert "\n" not in stopped.value.code
    assert capsys.readouterr() == ("", "")
    assert [path.name for path in tmp_path.rglob("*")] in ([], ["runs"])


def test_an_unwritable_runs_dir(
    train_here: Train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(SystemExit, match=r"^error: runs_dir: .*: Not a directory$"):
        train_here()
    assert capsys.readouterr() == ("", "")


def test_a_diverging_loss_leaves_nothing(train_here: Train, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: optimizer\.lr: the val loss is nan in epoch 0"):
        train_here("optimizer.lr=1e9", *SHORT)
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


def test_a_diverging_loss_removes_only_its_own(train_here: Train, tmp_path: Path) -> None:
    theirs = tmp_path / "seed=mine" / "tensorboard" / "theirs"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("")
    with pytest.raises(SystemExit, match=r"^error: optimizer\.lr: "):
        train_here("optimizer.lr=1e9", f"hydra.run.dir='{theirs.parents[1]}'", *SHORT)
    assert theirs.exists()


@pytest.mark.parametrize("no_time", ["00:00:00:00", "{hours: 0}"])
def test_half_a_training_has_no_result(train_here: Train, tmp_path: Path, no_time: str) -> None:
    with pytest.raises(SystemExit, match=r"^error: trainer: training was ended after 0 of 2 epoch"):
        train_here(f"+trainer.max_time={no_time}", *SHORT)
    assert not list(tmp_path.rglob("result.json"))


def test_a_run_of_steps_goes_on_after_an_epoch(train_here: Train) -> None:
    steps = ("trainer.max_steps=40", "trainer.max_epochs=4", "scheduler=cosine", *SHORT[1:])
    undisturbed = train_here(*steps, "seed=3", "data.seed=3")
    known = result_in(undisturbed)
    curve = (undisturbed / "metrics.csv").read_text()
    shutil.rmtree(undisturbed)
    with pytest.raises(SystemExit, match="training was ended after 1 of 4 epochs"):
        train_here("+trainer.max_time={milliseconds: 1}", *steps, "seed=3", "data.seed=3")
    folder = train_here(*steps, "seed=3", "data.seed=3")
    assert result_in(folder).model_copy(update={"seconds": known.seconds}) == known
    assert (folder / "metrics.csv").read_text() == curve


def test_a_run_of_steps_ends_within_an_epoch_and_is_whole(train_here: Train) -> None:
    folder = train_here("trainer.max_steps=40", "trainer.max_epochs=-1", *SHORT[1:])
    assert folder.parent.name == "trainer.max_steps=40"
    result = result_in(folder)
    assert (result.epochs, result.steps) == (2, 40)
    assert sum(map(sum, result.train.confusion)) == 10 * 128  # of the second epoch
    metrics = pandas.read_csv(folder / "metrics.csv", index_col=["stage", "epoch"])
    assert sorted(metrics.index) == [("train", 0), ("train", 1), ("val", 0), ("val", 1)]
    assert metrics.loc["val", 1]["accuracy"] == pytest.approx(result.val.accuracy, rel=1e-4)
    (folder / "result.json").unlink()  # killed after its last checkpoint
    train_here("trainer.max_steps=40", "trainer.max_epochs=-1", *SHORT[1:])
    assert result_in(folder).test == result.test
    assert result_in(folder).steps == 40


def test_predictions_are_the_confusion_matrix_image_by_image(train_here: Train) -> None:
    folder = train_here(*SHORT)
    predictions = RunFolder(folder).predictions()
    assert predictions is not None
    _, labels = load(REPOSITORY / "data", train=False)
    confusion = torch.zeros(10, 10, dtype=torch.long)
    predicted = torch.from_numpy(predictions["test"]).long()
    confusion.index_put_((labels, predicted), torch.ones(1, dtype=torch.long), accumulate=True)
    assert confusion.tolist() == result_in(folder).test.confusion
    assert predictions["val"].shape == (4 * 128,)


def test_a_record_tells_what_made_it(train_here: Train) -> None:
    result = result_in(train_here("loss=weighted", "loss.normalize=count", "seed=3", *SHORT))
    limits = "trainer.limit_train_batches=30, trainer.limit_val_batches=4"
    assert result.condition == f"weighted, loss.normalize=count, {limits}"
    assert result.groups == {"0-4": [0, 1, 2, 3, 4], "5-9": [5, 6, 7, 8, 9], "all": [*range(10)]}
    assert result.versions.keys() >= {"python", "torch", "torchvision", "lightning"}
    assert len(result.versions["git"].rstrip("+")) == 40
    assert result.data_sha256
    assert result.device.startswith("cpu, ")
    own = result.train.positive_of_own
    assert own is not None
    images_seen = [sum(row) for row in result.train.confusion]
    assert all(above <= seen for above, seen in zip(own, images_seen, strict=True))


def test_another_configs_run_is_left_alone(train_here: Train, tmp_path: Path) -> None:
    folder = train_here(*FEW)
    before = (folder / "result.json").read_bytes()
    with pytest.raises(SystemExit, match=r"holds a run with other values of data\.batch_size"):
        train_here("data.batch_size=64", f"hydra.run.dir='{folder}'", *FEW)
    assert (folder / "result.json").read_bytes() == before


def test_a_value_too_long_for_a_folder_name_is_told(train_here: Train) -> None:
    copies = ",".join(["{angle: 1, noise: 0.1}"] * 20)
    with pytest.raises(SystemExit, match=r"^error: a value is too long to name the run's folder"):
        train_here(f"data.copies=[{copies}]")


def test_help_shows_the_choices() -> None:
    shown = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    assert "python -m mnist_imbalance.train model=lstm data=imbalanced loss=weighted" in shown
    assert "data: augmented_100, augmented_40, augmented_original, duplicated_100, dupl" in shown
    assert "max_epochs: 50" in shown
    assert not [line for line in shown.splitlines() if line.startswith("study: ")]


@pytest.mark.slow
def test_the_weighted_loss_restores_the_minority(tmp_path: Path) -> None:
    """The report's main finding, whole length, one seed (Table 1, Figures 4 and 5)."""
    sweep = [*COMMAND, "-m", "hydra/launcher=joblib", "loss=plain,weighted"]
    subprocess.run([*sweep, f"runs_dir={tmp_path}"], cwd=REPOSITORY, check=True)
    plain, weighted = (
        result_in(folder).test
        for loss in ("plain", "weighted")
        for folder in tmp_path.glob(f"default/*loss={loss},*/seed=0")
    )
    assert plain.accuracy_of(range(5)) == pytest.approx(0.55, abs=0.1)
    assert plain.accuracy_of(range(5, 10)) == pytest.approx(0.93, abs=0.03)
    assert weighted.accuracy_of(range(5)) == pytest.approx(0.87, abs=0.04)
    assert weighted.accuracy_of(range(5, 10)) == pytest.approx(0.87, abs=0.04)
