import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from test_runs import perfect_run

from mnist_imbalance.jobs import as_outcome
from mnist_imbalance.published import published
from mnist_imbalance.runs import Result
from mnist_imbalance.summary import published_condition, tabulate_run, tabulate_sweep


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


def test_a_sweep_shows_what_differs() -> None:
    outcome = as_outcome(Path("a folder"), perfect_run())
    runs = [([f"seed={seed}", "model=lstm"], outcome) for seed in (0, 1)]
    table = tabulate_sweep(runs)
    assert [column.header for column in table.columns][:2] == ["seed", "val 0-4"]
    console = Console(file=io.StringIO())
    console.print(table)
    shown: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert ["1"] + ["100.0"] * 6 in [line.split() for line in shown.split("\n")]
