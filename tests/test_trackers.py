"""MLflow and Weights & Biases, each with its real store on this machine."""

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mnist_imbalance import train
from mnist_imbalance.runs import Result, RunFolder

if TYPE_CHECKING:  # what is collected and not run need not wait for them
    from mlflow.entities import Run

Train = Callable[..., Path]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs here, for MLflow takes seconds to make its store."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, runs: Path) -> Train:
    """The training command line in this process; the folder of its run."""

    def run(*overrides: str) -> Path:
        given = ["data/source=debug", "trainer=cpu", *overrides, f"runs_dir={runs}"]
        monkeypatch.setattr(sys, "argv", ["train", *given])
        train.main()
        return max(runs.rglob("result.json"), key=lambda file: file.stat().st_mtime).parent

    return run


def in_mlflow(runs: Path, folder: Path) -> "list[Run]":
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs}/mlflow.db")
    experiment = client.get_experiment_by_name("mnist_imbalance")
    assert experiment
    found = client.search_runs([experiment.experiment_id])
    name = str(folder.relative_to(runs))
    return [each for each in found if each.info.run_name == name]


def in_wandb(folder: Path) -> Iterator[Any]:
    """What `wandb sync` would send: records in LevelDB's format of logs, here of one block each."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        content, at = file.read_bytes(), 7
        while at + 7 < len(content) < 2**15:
            _, size, kind = struct.unpack_from("<IHB", content, at)
            assert kind == 1  # a whole record
            yield Record.FromString(content[at + 7 : at + 7 + size])
            at += 7 + size


def result_in(folder: Path) -> Result:
    result = RunFolder(folder).result()
    assert result
    return result


@pytest.mark.slow
def test_a_run_is_told_to_both_and_goes_on_in_the_same_of_theirs(
    run: Train, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["logger=[mlflow,wandb]", "trainer.max_epochs=2", "optimizer.lr=0.01"]
    folder = run(*overrides)
    assert f"mlflow ui --backend-store-uri sqlite:///{runs}/mlflow.db" in capsys.readouterr().out
    (folder / "result.json").unlink()  # as if it had been stopped after its last epoch
    assert run(*overrides) == folder
    result = result_in(folder)

    [theirs] = in_mlflow(runs, folder)
    assert theirs.info.status == "FINISHED"
    assert theirs.data.params["optimizer.lr"] == "0.01"
    assert theirs.data.params["loss"] == "plain"
    assert theirs.data.metrics["test/accuracy"] == pytest.approx(result.test.accuracy)
    assert theirs.data.metrics["val/accuracy"] == pytest.approx(result.val.accuracy)

    records = list(in_wandb(folder))
    assert len({each.run.run_id for each in records if each.HasField("run")}) == 1
    logged = [
        {item.nested_key[0] if item.nested_key else item.key: item.value_json for item in items}
        for each in records
        if (items := each.history.item)
    ]
    assert float(logged[-1]["test/accuracy"]) == pytest.approx(result.test.accuracy)
    losses = [float(each["val/loss"]) for each in logged if "val/loss" in each]
    assert losses[-1] == pytest.approx(result.val.loss)
    told = {item.key: item.value_json for each in records for item in each.config.update}
    assert told["optimizer.lr"] == "0.01"


@pytest.mark.slow
def test_runs_of_one_process_are_runs_of_their_own(run: Train, runs: Path) -> None:
    logger = "logger=[tensorboard,mlflow,wandb]"
    folders = [run(logger, "trainer.max_epochs=1", f"seed={seed}") for seed in (1, 2)]
    ids = set()
    for folder in folders:
        [theirs] = in_mlflow(runs, folder)
        assert theirs.data.params["seed"] == folder.name.removeprefix("seed=")
        assert theirs.info.run_id == (folder / "mlflow" / "run_id").read_text()
        assert (folder / "tensorboard").is_dir()
        [kept] = folder.glob("wandb/offline-run-*/*.wandb")
        ids.add(kept.stem)
    assert len(ids) == 2


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_what_is_not_installed_is_said_in_one_line(
    run: Train, runs: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as stopped:
        run(f"logger={name}", "seed=3")
    assert stopped.value.code == (
        f"error: logger: {name} is not installed; pip install 'mnist_imbalance[{name}]'"
    )
    assert not list(runs.rglob("seed=3"))


def test_a_server_that_does_not_answer_is_said_in_one_line(run: Train, runs: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("logger=mlflow", "logger.mlflow.tracking_uri=http://localhost:1", "seed=3")
    told = "error: logger.mlflow.tracking_uri: no server answers at http://localhost:1"
    assert str(stopped.value.code).startswith(told)
    assert not list(runs.rglob("seed=3"))


def test_neither_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, mnist_imbalance.fit; print({'mlflow', 'wandb'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n"
