"""Records of many runs in one file: packed, read again, merged and checked."""

import json
import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pandas
import pytest
from conftest import REPOSITORY
from pyarrow import parquet

from benchmarks.records import made_up
from mnist_imbalance import records as command
from mnist_imbalance.merging import merge
from mnist_imbalance.packed import MAY_BE_MISSING, ROWS, SCHEMA, tabulate, write
from mnist_imbalance.plan import read_study
from mnist_imbalance.report.gather import gather
from mnist_imbalance.report.images import read_images
from mnist_imbalance.report.tables import learned
from mnist_imbalance.report.write import write_report
from mnist_imbalance.runs import PACKED, Records, find_records

SCHEMA_1 = "adam_per_label/model=cnn,data=imbalanced,loss=per_label,optimizer=adam/seed=1"
SCHEMA_2 = "crossed/model=lstm,data=imbalanced,loss=plain,optimizer=sgd/data.seed=0/seed=2"
MEASURED = "methods_cnn/model=cnn,data=imbalanced,loss=plain,optimizer=sgd/data.keep=0.01/seed=0"
RUNS = (SCHEMA_1, SCHEMA_2, MEASURED)


def lab(place: Path, *runs: str) -> Path:
    """Copies of committed runs."""
    for run in runs:
        shutil.copytree(REPOSITORY / "results" / run, place / run)
    return place


def change(folder: Path, **values: Any) -> None:
    file = folder / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["records", *map(str, arguments)])
    command.main()


def same(ours: Records, theirs: Records) -> None:
    assert list(ours.results) == list(theirs.results)
    assert (ours.damaged, theirs.damaged) == ([], [])
    for key, result in theirs.results.items():
        assert ours.results[key] == result
        assert ours.results[key].model_dump() == result.model_dump()
        assert ours.kept[key].epochs(result) == theirs.kept[key].epochs(result)
        of_val, its_own = (
            each.kept[key].validated(len(result.train_counts), result.epochs)
            for each in (ours, theirs)
        )
        assert of_val
        assert its_own
        assert of_val.epochs.tolist() == its_own.epochs.tolist()
        assert of_val.accuracies.tolist() == its_own.accuracies.tolist()
        packed, kept = ours.kept[key].predictions(), theirs.kept[key].predictions()
        assert (packed or {}).keys() == (kept or {}).keys()
        for split, labels in (kept or {}).items():
            assert packed
            assert packed[split].tolist() == labels.tolist()


def test_what_is_packed_is_read_as_it_was(tmp_path: Path) -> None:
    runs = lab(tmp_path / "runs", *RUNS)
    assert merge([runs], tmp_path / "packed") == (3, 0)
    records = find_records([runs])
    assert {result.schema_version for result in records.results.values()} == {1, 2}
    assert any(result.test.metrics for result in records.results.values())
    same(find_records([tmp_path / "packed"]), records)
    table = pandas.read_parquet(tmp_path / "packed" / PACKED, columns=["seed", "test_accuracy"])
    assert table.seed.tolist() == [result.seed for result in records.results.values()]
    assert table.test_accuracy.tolist() == [r.test.accuracy for r in records.results.values()]


@pytest.mark.slow
def test_the_committed_records_and_their_report_are_the_same_when_packed(tmp_path: Path) -> None:
    results = REPOSITORY / "results"
    merge([results], tmp_path / "packed")
    same(find_records([tmp_path / "packed"]), find_records([results]))
    for place in (results, tmp_path / "packed"):
        keys = [f"runs_dir={tmp_path / 'none'}", f"records_dirs=[{place}]"]
        write_report(read_study([*keys, f"study.report_dir={tmp_path / f'of {place.name}'}"]))
    files = [path for path in (tmp_path / "of results").rglob("*") if path.is_file()]
    assert len(files) > 20
    for file in files:
        other = tmp_path / "of packed" / file.relative_to(tmp_path / "of results")
        assert file.read_bytes() == other.read_bytes(), file.name


def test_runs_of_two_labs_are_merged_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, runs in (("one", RUNS[:2]), ("two", RUNS[1:])):
        call(monkeypatch, "pack", lab(tmp_path / f"{name} runs", *runs), "--into", tmp_path / name)
        assert capsys.readouterr().out == "2 runs\n"
    call(monkeypatch, "merge", tmp_path / "one", tmp_path / "two", "--into", tmp_path / "both")
    assert capsys.readouterr().out == "3 runs, 1 found again and equal\n"
    same(find_records([tmp_path / "both"]), find_records([lab(tmp_path / "all", *RUNS)]))
    call(monkeypatch, "check", tmp_path / "both", tmp_path / "one runs")
    assert capsys.readouterr().out == "3 runs, all whole\n"
    with pytest.raises(SystemExit, match=r"^error: --into: .*both/records\.parquet is there"):
        call(monkeypatch, "merge", tmp_path / "one", "--into", tmp_path / "both")
    with pytest.raises(SystemExit, match=r"^error: --into: .*records\.parquet is no folder"):
        call(monkeypatch, "pack", tmp_path / "one", "--into", tmp_path / "both" / PACKED)


def test_runs_that_disagree_are_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = (lab(tmp_path / name, *RUNS) for name in ("ours", "theirs"))
    change(theirs / SCHEMA_1, seconds={"fit": 1.0, "test": 1.0}, device="another")
    loss = json.loads((theirs / SCHEMA_2 / "result.json").read_text())["test"]
    change(theirs / SCHEMA_2, test=loss | {"loss": loss["loss"] + 1e-9})
    merge([theirs], tmp_path / "packed")
    for other in (theirs, tmp_path / "packed"):
        with pytest.raises(SystemExit) as ended:
            call(monkeypatch, "merge", ours, other, "--into", tmp_path / "both")
        named = str(ended.value)
        assert named.startswith("error: nothing is written: ")
        assert str(ours / SCHEMA_2) in named
        assert f"{other}" in named
        assert SCHEMA_2 in named.partition(" and ")[2]
        assert "more" not in named  # another device and time are no other numbers
        assert not (tmp_path / "both").exists()
    with pytest.raises(SystemExit, match="error: records: 1 damaged or disagreeing"):
        call(monkeypatch, "check", ours, theirs)
    assert capsys.readouterr().out.count("are of one run and differ") == 1


def test_what_is_damaged_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = lab(tmp_path / "runs", *RUNS)
    merge([runs], tmp_path / "packed")
    file = tmp_path / "packed" / PACKED
    whole = file.read_bytes()
    for content in (b"", b"no table", whole[: len(whole) // 2]):
        file.write_bytes(content)
        [line] = find_records([tmp_path / "packed"]).damaged
        assert line.startswith(f"runs_dir, records_dirs: {file} is damaged (")
        with pytest.raises(SystemExit, match=r"nothing is written: .*records\.parquet is damaged"):
            call(monkeypatch, "merge", tmp_path / "packed", "--into", tmp_path / "both")
    pandas.DataFrame({"seed": [1]}).to_parquet(file)
    assert "no such columns" in find_records([tmp_path / "packed"]).damaged[0]
    (runs / SCHEMA_2 / "predictions.npz").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"nothing is written: .*predictions\.npz is damaged"):
        call(monkeypatch, "pack", runs, "--into", tmp_path / "both")
    with pytest.raises(SystemExit, match=r"^error: records: there is no folder nowhere"):
        call(monkeypatch, "check", "nowhere")


def packed_run(place: Path) -> tuple[Path, pandas.DataFrame]:
    """A file with a run, and what it holds."""
    merge([lab(place / "runs", SCHEMA_2)], place / "packed")
    file = place / "packed" / PACKED
    return file, pandas.read_parquet(file)


def test_a_changed_row_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, table = packed_run(tmp_path)
    for column, value in (("test_loss", 0.5), ("config", "{}"), ("epochs_values", [0.5] * 1400)):
        changed = table.assign(**{column: [value]})
        changed.to_parquet(file, schema=SCHEMA)
        with pytest.raises(SystemExit):
            call(monkeypatch, "check", tmp_path / "packed")
        assert f"{file}: {SCHEMA_2} is damaged (" in capsys.readouterr().out, column
    monkeypatch.chdir(tmp_path)  # where this file's path is a part of another's, which is no table
    (tmp_path / "lab/packed").mkdir(parents=True)
    (tmp_path / "lab/packed" / PACKED).write_bytes(b"")
    with pytest.raises(SystemExit, match=r"^error: records: 2 damaged"):
        call(monkeypatch, "check", "lab", "packed")


def test_a_row_that_lacks_something_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, table = packed_run(tmp_path)
    for_a_reader = {"val_accuracy", "test_accuracy"}
    for column in sorted({*SCHEMA.names} - MAY_BE_MISSING - for_a_reader):
        table.assign(**{column: None}).to_parquet(file, schema=SCHEMA)
        with pytest.raises(SystemExit) as stopped:
            call(monkeypatch, "check", tmp_path / "packed")
        said = f"{capsys.readouterr().out}{stopped.value.code}"
        assert f"{file} is damaged (" in said, column
        assert column in said


def test_the_report_reads_a_group_of_records_once_for_all_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    write(tmp_path / PACKED, tabulate(islice(made_up(), 3 * ROWS)))
    gathered = gather(read_study([f"runs_dir={tmp_path}", "records_dirs=[]"]))
    labels = read_images([]).labels
    read: list[int] = []
    read_row_group = parquet.ParquetFile.read_row_group

    def counting(file: parquet.ParquetFile, group: int, **how: Any) -> Any:
        read.append(group)
        return read_row_group(file, group, **how)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", counting)
    by_condition = gathered.runs.sort_values("condition").config_hash
    assert len(learned(gathered, by_condition)) == len(gathered.curves) > ROWS
    of_curves = list(read)
    assert gathered.correct(by_condition, labels).keys() == gathered.predictions.keys()
    for groups in (of_curves, read[len(of_curves) :]):
        assert len(groups) > 1
        assert groups == sorted({*groups})


def test_rows_are_written_in_whole_groups_or_not_at_all(tmp_path: Path) -> None:
    merge([lab(tmp_path / "runs", SCHEMA_2)], tmp_path / "packed")
    one = parquet.read_table(tmp_path / "packed" / PACKED)
    file = tmp_path / "many" / PACKED
    assert write(file, [one] * (ROWS + 1)) == ROWS + 1
    groups = parquet.ParquetFile(file).metadata
    assert [groups.row_group(each).num_rows for each in (0, 1)] == [ROWS, 1]

    def breaking() -> Any:
        yield one
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "many" / "other.parquet", breaking())
    assert [path.name for path in (tmp_path / "many").iterdir()] == [PACKED]
