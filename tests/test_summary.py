import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from test_runs import perfect_run

from mnist_imbalance.jobs import Outcome, as_outcome
from mnist_imbalance.launcher import returned
from mnist_imbalance.published import published
from mnist_imbalance.runs import Result, RunFolder
from mnist_imbalance.summary import published_condition, show_sweep, tabulate_run, tabulate_sweep


def lines(table: Table) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    shown: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [[cell.strip() for cell in line.strip("│┃").split("│")] for line in shown.split("\n")]


def test_the_table_of_ai3607_contradicts_its_text() -> None:
    original = published()["table_1"]["original"]
    assert sum(original) / 10 == pytest.approx(0.851, abs=0.0005)
    assert published()["text"]["original"]["overall"] == 0.826


def test_a_run_stands_beside_the_numbers_of_ai3607() -> None:
    table = tabulate_run(perfect_run())
    assert [column.header for column in table.columns][2:] == ["AI3607's Table 1", "AI3607's text"]
    shown = lines(table)
    assert ["3", "100.0", "20.9", ""] in shown
    assert ["0-4", "100.0", "63.7", "66.5"] in shown
    assert ["5-9", "100.0", "89.0", "88.3"] in shown
    assert ["all", "100.0", "76.3", "77.4"] in shown


def test_a_condition_that_ai3607_lacks_stands_alone() -> None:
    shown = lines(tabulate_run(perfect_run().model_copy(update={"model": "cnn"})))
    assert ["0-4", "100.0"] in shown


def test_conditions() -> None:
    def named(result: Result, **changes: object) -> str | None:
        return published_condition(result.model_copy(update=changes))

    plain = perfect_run()
    per_label = perfect_run("loss=per_label")
    assert named(plain) == "imbalanced"
    assert named(plain, data="augmented_40") == "augmented_40"
    assert named(plain, model="cnn") is None
    assert named(plain, loss="weighted") is None
    assert named(per_label, loss="per_label") == "per_label"
    assert named(per_label, loss="per_label", data="original") is None


def outcome_of(val: float, test: float) -> Outcome:
    outcome = as_outcome(Path("a folder"), perfect_run())
    outcome["val"]["all"], outcome["test"]["all"] = val, test
    return outcome


def shown_in_80_columns(table: Table) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    shown: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [re.split(r" {2,}", line.strip()) for line in shown.split("\n")]


def test_a_sweep_shows_what_differs_and_means_over_seeds() -> None:
    runs = [
        ([f"loss.minority_weight={weight}", "model=lstm", f"seed={seed}"], outcome_of(val, test))
        for weight, seed, val, test in [
            ("2", 0, 0.1, 0.5), ("2", 1, 0.3, 0.5), ("7", 0, 0.2, 0.4), ("7", 1, 0.4, 0.6),
        ]
    ]  # fmt: skip
    table = tabulate_sweep(runs, "val")
    header = ["loss.minority_weight", "n", "0-4", "5-9", "all"]
    assert [column.header for column in table.columns] == header
    half = 12.706 * 0.1 * 100  # of Student's t with one degree of freedom, × the standard error
    shown = shown_in_80_columns(table)
    assert ["2", "2", "100.0 ± 0.0", "100.0 ± 0.0", f"20.0 ± {half:.1f}"] in shown
    assert ["7", "2", "100.0 ± 0.0", "100.0 ± 0.0", f"30.0 ± {half:.1f}"] in shown
    tested = shown_in_80_columns(tabulate_sweep(runs, "test"))
    assert ["2", "2", "100.0 ± 0.0", "100.0 ± 0.0", "50.0 ± 0.0"] in tested


def test_a_single_seed_stands_without_an_interval() -> None:
    runs = [([f"loss={loss}", "seed=3"], outcome_of(0.5, 0.25)) for loss in ("plain", "weighted")]
    shown = shown_in_80_columns(tabulate_sweep(runs, "test"))
    assert ["plain", "1", "100.0", "100.0", "25.0"] in shown


def test_seeds_alone_are_one_row() -> None:
    runs = [([f"seed={seed}"], outcome_of(0.5, 0.25)) for seed in range(3)]
    assert ["3", "100.0 ± 0.0", "100.0 ± 0.0", "25.0 ± 0.0"] in shown_in_80_columns(
        tabulate_sweep(runs, "test")
    )


def test_a_long_value_breaks_no_number() -> None:
    values = ["[" + ",".join([digit] * 40) + "]" for digit in "12"]
    runs = [
        ([f"loss.weights={value}", f"seed={seed}"], outcome_of(0.5, 0.25))
        for value in values
        for seed in (0, 1)
    ]
    shown = shown_in_80_columns(tabulate_sweep(runs, "test"))
    assert sum(row[-4:] == ["2", "100.0 ± 0.0", "100.0 ± 0.0", "25.0 ± 0.0"] for row in shown) == 2


@pytest.mark.parametrize("logged", [True, False])
def test_a_sweep_tells_where_to_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], logged: bool
) -> None:
    jobs = []
    for seed in range(2):
        folder = RunFolder(tmp_path / "sweep" / f"seed={seed}")
        if logged:
            folder.tensorboard.mkdir(parents=True)
        jobs.append(returned([f"seed={seed}"], as_outcome(folder.path, perfect_run())))
    show_sweep([*jobs, jobs[0]])  # as with seed=0,1,0
    look = "TensorBoard: tensorboard --logdir" if logged else "run folders, in"
    shown = capsys.readouterr().out
    assert f"\n{look} '{tmp_path / 'sweep'}'\n" in shown
    assert re.search(r"\n 2  ", shown)  # runs
