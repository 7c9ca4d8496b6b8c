"""What a condition is called, by the code and for a reader."""

import pytest
from conftest import REPOSITORY

from mnist_imbalance.records.table import read
from mnist_imbalance.report.tables import BY_COUNT, COMPARED, HEADLINE, REMEDIES
from mnist_imbalance.report.words import title as title_of


@pytest.mark.parametrize(
    ("condition", "title"),
    [
        ("original", "original"),
        ("augmented_40", "augmented 40 %"),
        ("per_label", "AI3607's weights"),
        ("per_label, loss.normalize=count", "AI3607's weights, by images"),
        ("weighted", "weight 7"),
        ("weighted, loss.normalize=count", "weight 7, by images"),
        ("weighted, loss.minority_weight=3", "weight 3"),
        ("weighted, loss.minority_weight=10, loss.normalize=count", "weight 10, by images"),
        ("augmented_40, weighted", "augmented 40 %, weight 7"),
        ("augmented_40, weighted, loss.minority_weight=3", "augmented 40 %, weight 3"),
        ("focal, loss.minority_weight=3", "focal, loss.minority_weight=3"),
        ("imbalanced, model.output_relu=False", "imbalanced, no output ReLU"),
        ("imbalanced, data.keep=0.05", "imbalanced, data.keep=0.05"),
        ("weighted, loss.weights=[2, 1]", "weight 7, loss.weights=[2, 1]"),
    ],
)
def test_a_reader_sees_a_title(condition: str, title: str) -> None:
    assert title_of(condition) == title


def test_committed_runs_have_the_names_that_the_report_looks_for() -> None:
    runs, _ = read([REPOSITORY / "results"])
    looked_for = {*REMEDIES, *HEADLINE, *(name for pair in COMPARED.values() for name in pair)}
    assert looked_for <= set(runs.condition)
    swept = [f"weighted, loss.minority_weight={weight}" for weight in (2, 4, 10)]
    names = {name + divisor for name in ["weighted", *swept] for divisor in ("", BY_COUNT)}
    assert names < set(runs.condition)
