"""Records: their identity, their files, and all of them as one table."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from conftest import REPOSITORY, Command, composed
from made_runs import GROUPS
from omegaconf import OmegaConf

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records import identity, table
from mnist_imbalance.records.__main__ import main
from mnist_imbalance.records.result import (
    Result,
    Scores,
    read_predictions,
    read_record,
    write_record,
)

CHOICES = {"model": "lstm", "data": "imbalanced", "loss": "plain", "optimizer": "sgd"}
CONFIG = identity.result_config(composed("data.seed=0"))
LABELS = {"val": numpy.arange(89, dtype=numpy.uint8), "test": numpy.zeros(99, numpy.uint8)}


def scores(right: int = 9, **more: Any) -> Scores:
    """Ten images of each label, some taken for the next label."""
    confusion = (numpy.eye(10, dtype=int) * right + numpy.eye(10, k=1, dtype=int)).tolist()
    return Scores(confusion=confusion, loss=0.1 + 0.2, positive=[7] * 10, **more)


def made(seed: int = 0, test: Scores | None = None, **more: Any) -> Result:
    known: dict[str, Any] = {"seed": seed, "data_seed": 0, "epochs": 2, "steps": 2}
    known["train_counts"] = [10] * 10
    known |= {"groups": GROUPS, "data_sha256": None, "seconds": {"fit": 1 / 3, "test": 1}}
    known |= {"device": "cpu", "threads": 1, "versions": {"torch": "2"}, "condition": "imbalanced"}
    known |= {"train": scores(), "val": scores(8)}
    known["test"] = test or scores(9 + seed, positive_of_own=[7] * 10)
    known |= CHOICES | {"config": CONFIG | {"seed": seed}} | more
    return Result(**known, config_hash=identity.hash_config(known["config"]))


def keep(folder: Path, result: Result) -> Path:
    history = {"train": {0: result.train, 1: result.train}, "val": {0: result.val, 1: result.val}}
    write_record(folder, result, history, LABELS)
    return folder


def alter(folder: Path, **values: Any) -> None:
    file = folder / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def comparable(runs: pandas.DataFrame) -> list[str]:
    """All values of a table but for the places of its records, as text."""
    plain = runs.drop(columns=["folder", "file"]).astype(object)
    values = plain.where(plain.notna(), None).to_dict("records")
    return [json.dumps(row, default=numpy.ndarray.tolist) for row in values]


@pytest.fixture(scope="module")
def committed() -> pandas.DataFrame:
    runs, damaged = table.read([REPOSITORY / "results"])
    assert damaged == []
    assert len(runs) >= 961
    return runs


def test_every_committed_record_keeps_its_hash(committed: pandas.DataFrame) -> None:
    today = {first: path for path, first in identity.RENAMED.items()}
    assert len(today) == len(identity.RENAMED)
    for config, key in zip(committed.config, committed.config_hash, strict=True):
        moved = identity.rename(config, today)
        assert not set(today) & {value for value in moved.values() if isinstance(value, str)}
        assert identity.hash_config(identity.rename(moved, identity.RENAMED)) == key


def test_a_config_of_an_earlier_version_is_the_same_run() -> None:
    config = composed("loss=vs", "metrics=calibration")
    old = OmegaConf.create(identity.rename(OmegaConf.to_container(config), identity.RENAMED))
    today, values = identity.to_current(old), identity.result_config(config)
    assert identity.result_config(old) == identity.result_config(today) == values
    assert today.loss._target_ == "mnist_imbalance.methods.losses.vs"
    assert today == identity.to_current(config)


def test_the_hash_ignores_where_and_how_a_run_is_made_and_new_keys_at_their_old_value() -> None:
    same = ["runs_dir=x", "threads=2", "data.dir=x", "trainer=gpu", "metrics=labels", "mix=none"]
    same += ["trainer.enable_progress_bar=false", "+trainer.max_time={hours:1}", "posthoc=none"]
    same += ["trainer.max_steps=-1", "data.copied=minority", "model.hidden_size=64", "logger=none"]
    assert identity.result_config(composed(*same)) == identity.result_config(composed())
    as_before = ["posthoc=lws", "posthoc.weight_decay=0", "posthoc.transforms=false"]
    values = identity.result_config(composed(*as_before))
    assert not {"posthoc.weight_decay", "posthoc.transforms"} & values.keys()


def test_a_condition_is_named_by_its_data_its_loss_and_the_changes() -> None:
    def name(*overrides: str, **chosen: str) -> str:
        choices = CHOICES | {"data/sampler": "shuffle"} | chosen
        return identity.condition_of(identity.result_config(composed(*overrides)), choices)

    original = name("data=original", "data.keep=0.5", "+model.depth=3", data="original")
    assert original == "original, data.keep=0.5, model.depth=3"
    folder = {"data/profile": "step", "data/source": "folder"}  # whose own profile is natural
    by_step = name(*map("=".join, folder.items()), **folder)
    assert by_step == "imbalanced, data/profile=step, data/source=folder"
    per_label = ("loss=per_label", "loss.weights=[1]", "seed=4", "trainer.max_epochs=9")
    assert name(*per_label, loss="per_label") == "per_label, loss.weights=[1]"


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    assert read_predictions(tmp_path) == {}
    last = scores(4, metrics={"ece": None, "mcc": 1 / 3})
    assert last.accuracy_per_label == [0.8] * 9 + [1]
    assert Scores(confusion=[[1, 0], [0, 0]], loss=1, positive=[1, 0]).balanced_accuracy == 1
    result = made(3)
    history = {"val": {0: scores()}, "train": {0: scores(), 1: last}}
    write_record(tmp_path, result, history, LABELS)
    assert read_record(tmp_path) == result
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header.startswith("epoch,stage,loss,accuracy,accuracy_0_4,accuracy_5_9,accuracy_0,")
    assert header.endswith(",accuracy_9,ece,mcc")  # metrics that were added when it was resumed
    assert [row[:10] for row in rows] == ["0,val,0.3,", "0,train,0.", "1,train,0."]
    assert [row.split(",")[-2:] for row in rows] == [["", ""], ["", ""], ["nan", "0.33333"]]
    record = json.loads((tmp_path / "result.json").read_text())
    assert (record["schema"], record["seed"], record["val"]["accuracy"]) == (2, 3, 80 / 89)
    read = read_predictions(tmp_path)
    assert all(read[split].tolist() == LABELS[split].tolist() for split in ("val", "test"))


def test_a_damaged_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["result.json", "more.parquet", "other.parquet", "folder/result.json"]
    (tmp_path / "result.json").write_bytes(b'{"schema": 2')
    (tmp_path / "more.parquet").write_bytes(b"\xff")
    pandas.DataFrame({"seed": [1]}).to_parquet(tmp_path / "other.parquet")
    (tmp_path / "folder" / "result.json").mkdir(parents=True)
    untrue: list[dict[str, Any]] = [{"test": {"loss": 1}}, {"config": {}}, {"schema": 1}]
    for values in untrue:
        wrong.append(f"{len(wrong)}/result.json")
        alter(keep((tmp_path / wrong[-1]).parent, made(1)), **values)
    file = keep(tmp_path / "run", made()) / "predictions.npz"
    file.write_bytes(file.read_bytes()[:300])
    runs, lines = table.read([tmp_path, tmp_path / "missing"])
    assert (len(runs), len(lines)) == (1, 7)
    assert all(line.endswith("; delete it and run it again, or restore it") for line in lines)
    with pytest.raises(ConfigError, match=r"predictions\.npz is damaged"):
        table.predictions(runs)
    with pytest.raises(ConfigError, match="records: 8 damaged or disagreeing, named above"):
        table.merge([tmp_path])
    shown = capsys.readouterr().out
    assert all(f"{tmp_path / name} is damaged (" in shown for name in (*wrong, "run/" + file.name))


def test_packed_runs_are_the_runs_of_the_folders(tmp_path: Path) -> None:
    keep(tmp_path / "runs" / "a", made(1, scores(metrics={"ece": 1 / 3, "nll": None})))
    keep(tmp_path / "runs" / "b", made(2, data_sha256="0" * 64))
    (keep(tmp_path / "runs" / "c", made(3)) / "predictions.npz").unlink()
    (keep(tmp_path / "runs" / "d", made(4)) / "metrics.csv").unlink()
    file = tmp_path / "packed" / "study.parquet"
    assert table.merge([tmp_path / "runs"], file) == (4, 0)
    (runs, _), (packed, _) = table.read([tmp_path / "runs"]), table.read([file])
    assert comparable(runs) == comparable(packed)
    assert runs.folder.tolist() == [str(tmp_path / "runs" / name) for name in "abcd"]
    assert {*packed.folder, *packed.file} == {"", str(file)}
    assert packed.test_metrics[0] == {"ece": 1 / 3, "nll": None}
    assert table.epochs(packed).equals(table.epochs(runs))
    table.pack(packed, tmp_path / "again.parquet")
    assert comparable(table.read([tmp_path / "again.parquet"])[0]) == comparable(packed)
    assert table.epochs(packed).config_hash.unique().tolist() == runs.config_hash[:3].tolist()
    assert list(table.epochs(packed[3:])) == ["epoch", "stage", "config_hash"]
    for split in ("val", "test"):
        ours, others = table.predictions(runs, split), table.predictions(packed[1:], split)
        assert list(ours) == runs.config_hash[[0, 1, 3]].tolist()
        assert list(others) == runs.config_hash[[1, 3]].tolist()
        assert all(labels.tolist() == ours[key].tolist() for key, labels in others.items())
    plain = pandas.read_parquet(file.parent)
    assert plain.seed.tolist() == [1, 2, 3, 4]
    assert plain.test_accuracy.round(3).tolist() == [0.909, 0.924, 0.93, 0.935]
    assert plain.epochs_csv[0] == (tmp_path / "runs" / "a" / "metrics.csv").read_text()


def test_forged_records_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [keep(tmp_path / str(seed), made(seed)) for seed in range(7)]
    forged: list[dict[str, Any]] = [{"condition": "weighted"}, {"model": "cnn"}, {"steps": 3}]
    for folder, values in zip(folders, forged, strict=False):
        alter(folder, **values)
    metrics = folders[3] / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("train,0.3", "train,0.4"))
    alter(folders[4], train_counts=[9] * 10)
    keep(folders[6], made(6, scores(9 + 5, positive_of_own=[7] * 10)))
    with pytest.raises(ConfigError, match=r"^records: 6 damaged or disagreeing"):
        table.merge([tmp_path])
    *lines, counts, copied = capsys.readouterr().out.splitlines()
    names = [line.rpartition(": ")[2].partition(" is")[0] for line in lines]
    assert names == ["condition", "condition", "steps", "metrics.csv"]
    assert "train_counts differ, of" in counts and made(4).config_hash in counts
    hashes = f"{made(5).config_hash}, {made(6).config_hash}"
    assert copied == f"scores are equal, of {hashes}"


def test_the_committed_records_are_whole(committed: pandas.DataFrame) -> None:
    everything = table.merge([REPOSITORY / "results", REPOSITORY / "docs" / "search"])
    assert everything == (len(committed) + 39, 0)


def test_accuracies_are_those_of_the_scores(tmp_path: Path) -> None:
    few = Scores(confusion=[[3, 1], [0, 0]], loss=1.0, positive=[1, 0])
    two: dict[str, Any] = dict.fromkeys(("train", "val", "test"), few)
    two |= {"train_counts": [3, 0], "groups": {"rare": [1]}}
    for seed in (1, 2, 3):
        keep(tmp_path / str(seed), made(seed, **(two if seed == 2 else {})))
    runs, damaged = table.read([tmp_path])
    assert damaged == []
    found = table.accuracies(runs, "val")
    assert found.index.equals(runs.index)
    assert found["all"].tolist() == [80 / 89, 0.75, 80 / 89]
    assert found["0-4"].round(9).tolist()[::2] == [round(8 / 9, 9)] * 2
    assert found["0"].tolist()[1] == 0.75
    assert found.loc[1, ["1", "9", "rare", "0-4"]].isna().all()
    assert table.accuracies(runs[:0], "val").empty


def test_the_records_of_two_labs_are_merged_or_named(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    call = partial(command, main)
    one, two, both = (tmp_path / name for name in ("one", "two", "both"))
    for lab, seeds in ((one, (1, 2)), (two, (2, 3))):
        for seed in seeds:
            keep(lab / "runs" / str(seed), made(seed))
        assert call("pack", lab / "runs", "--into", lab) == "2 runs\n"
        assert (lab / "records.parquet").exists()
    other = two / "runs" / "2"
    alter(other, device="another", seconds={"fit": 5, "test": 5})
    merged = call("merge", one / "runs", two / "runs", "--into", both)
    assert merged == "3 runs, 1 found again and equal\n"
    assert table.read([both])[0].device.tolist() == ["cpu"] * 3
    assert call("check", both) == "3 runs\n"
    with pytest.raises(SystemExit, match=r"^error: --into: .*records\.parquet is there already"):
        call("merge", one, "--into", both)
    with pytest.raises(SystemExit, match=r"^error: records: no result of a run below nowhere"):
        call("check", "nowhere")
    with pytest.raises(SystemExit):
        call("merge", one)
    assert "pack and merge need --into" in capsys.readouterr().err

    last = math.nextafter(scores().loss, 1)
    alter(other, test=json.loads(scores().model_copy(update={"loss": last}).model_dump_json()))
    with pytest.raises(SystemExit, match="error: records: 1 damaged or disagreeing"):
        call("merge", one / "runs", two / "runs", "--into", tmp_path / "more")
    [line] = capsys.readouterr().out.splitlines()
    places = " and ".join(str(lab / "runs" / "2" / "result.json") for lab in (one, two))
    assert line.startswith(places) and line.endswith("and differ")
    assert not (tmp_path / "more").exists()
