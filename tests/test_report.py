"""The report's sentences and files, of hand-made runs and of the committed records."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import REPOSITORY
from made_runs import groups, run

from mnist_imbalance.config import compose_with, take_apart
from mnist_imbalance.records import table as records
from mnist_imbalance.report import tables, words
from mnist_imbalance.report.page import write_report

pytest_plugins = ["made_runs"]
LAST = {"trainer.max_steps": 11650}


def made(**others: Any) -> list[dict[str, Any]]:
    """Two seeds of the original, the imbalanced and the copied set at equal steps."""
    reached = {"original": 0.9, "imbalanced": 0.6, "duplicated_100": 0.7}
    return [
        run(name, s, groups(rare, 0.9), config={} if name == "imbalanced" else LAST, **others)
        for name, rare in reached.items()
        for s in range(2)
    ]


def report(rows: list[dict[str, Any]], part: str = "") -> str:
    raw = pd.DataFrame(rows)
    told = {"tables": tables.tabulate(raw), "runs": tables.on_grounds(raw), "damaged": ["a file"]}
    return words.render("report.md.j2", **told, part=part, figures={}, no_images="no archive")


@pytest.mark.usefixtures("kept_in_memory")
def test_the_finding_names_models_and_numbers() -> None:
    rows = made() + made(model="cnn") + made(optimizer="adam")
    finding = report(rows, "finding")
    assert (
        "lose test accuracy: 30.0 points with the LSTM and 30.0 points with the CNN (SGD" in finding
    )
    assert "bring back 33 % with the LSTM and 33 % with the CNN.\n" in finding
    assert "With Adam they lose 30.0 points with the LSTM; the copies bring back 33 %" in finding
    assert "| 10 unchanged copies | 33 % [33, 33] | 33 % [33, 33] | 33 % [33, 33] |" in finding
    whole = report(rows)
    assert finding.partition("\n\n")[0] in whole
    assert "Figure 3 is missing: no archive" in whole
    assert "Damaged record: a file" in whole


def test_one_seed_gives_no_interval_no_finding_and_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    none = pd.DataFrame(columns=["epoch", "stage", "config_hash"])  # nothing beside the records
    monkeypatch.setattr(records, "epochs", lambda runs: none)
    monkeypatch.setattr(records, "predictions", lambda runs: {})
    rows = [row for row in made() if row["seed"] == 0]
    assert report(rows, "finding").startswith("There is no finding yet")
    assert "| LSTM | imbalanced | 60.0 | 90.0 | 75.0 | 63.7 | 1 |" in report(rows)
    assert set(tables.tabulate(pd.DataFrame(rows))["claims"].verdict) == {"undecided"}


@pytest.mark.usefixtures("kept_in_memory")
def test_another_study_has_a_report_of_its_own() -> None:
    three = {"many": [0, 1], "medium": [2], "few": [3, 4], "all": [*range(5)]}
    rows = [
        run(name, seed, [0.9, 0.8, 0.7, 0.6, 0.5 + seed / 10], model="vit", groups=three)
        for name in ("imbalanced", "focal, loss.gamma=2", "<b>|[x](y)")
        for seed in range(2)
    ]
    text = report(rows)
    assert "AI3607" not in text.partition("## Method")[0]
    assert "| model | condition | labels many | labels medium | labels few | all | n |" in text
    assert "| vit | focal, loss.gamma=2 |" in text
    assert "| vit | &lt;b>\\|[x\\](y) |" in text  # what a record says is no markup


def test_what_is_written_for_numbers() -> None:
    row = {"n": 5, "mean": 0.551, "low": 0.515, "high": 0.587, "effect": -0.02}
    assert words.percent(row) == "55.1 ± 3.6"
    assert words.percent(row | {"low": math.nan}) == "55.1"
    assert words.interval(row | {"low": -0.03, "high": 0.01}) == "−2.00 [−3.00, +1.00]"
    ends = {(0.625, 0.849): " [62, 85]", (-0.1, 1.2): " [−10, 120]", (math.nan,) * 2: ""}
    ends |= {(-math.inf, math.inf): " [any]"}
    for (low, high), said in ends.items():
        assert words.fraction({"fraction": 0.724, "low": low, "high": high}) == f"72 %{said}"
    assert words.fraction({"fraction": math.nan}) == "unknown"
    assert (
        words.title("weighted, loss.minority_weight=3, loss.normalize=count")
        == "weight 3, by images"
    )
    assert words.title("per_label, data.keep=0.05") == "AI3607's weights, data.keep=0.05"
    names = ["weighted", "mine", "imbalanced", "weighted, loss.minority_weight=10", "original"]
    sorted_names = pd.Series(names, name="condition").sort_values(key=words.place).tolist()
    assert sorted_names == ["original", "imbalanced", "weighted", names[3], "mine"]


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rebuilt")
    overrides = [f"runs_dir={folder / 'runs'}", f"records_dirs=[{REPOSITORY / 'results'}]"]
    overrides += [f"study.report_dir={folder}"]
    config, _ = take_apart(compose_with(overrides, name="study", with_hydra=True))
    return write_report(config).parent


def test_the_committed_report_is_what_the_committed_records_give(rebuilt: Path) -> None:
    committed = REPOSITORY / "report"
    made = sorted(path.name for path in (rebuilt / "tables").iterdir())
    assert made == sorted(path.name for path in (committed / "tables").iterdir())
    for name in ["report.md", "finding.md", "ranking.md", *(f"tables/{table}" for table in made)]:
        assert (committed / name).read_text() == (rebuilt / name).read_text(), name
    for picture in (rebuilt / "figures").iterdir():
        assert (committed / "figures" / picture.name).exists()


def test_the_readme_opens_with_the_finding(rebuilt: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    [*sentences, _, _] = (rebuilt / "finding.md").read_text().split("\n\n")  # caption and table
    finding = "\n\n".join(sentences)
    assert f"mnist_imbalance.report -->\n{finding}\n<!-- end of" in readme
    assert readme.index(finding) < readme.index("## ")
