"""What a condition is called, by the code and for a reader."""

import pytest
from handmade import study_of

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


def test_planned_runs_have_the_names_that_the_report_looks_for() -> None:
    overlays = "default,equal_steps,normalize,per_label,per_label_by_count,per_label_chosen"
    _, runs = study_of(
        *(f"study.experiments=[{overlays}]", "study.extensions=[]", "study.seeds=[0,1]")
    )
    planned = {run.condition for run in runs}
    looked_for = {*REMEDIES, *HEADLINE, *(name for pair in COMPARED.values() for name in pair)}
    assert looked_for <= planned
    swept = {run.condition for run in runs if run.experiment == "normalize"}
    names = ["weighted", *(f"weighted, loss.minority_weight={weight}" for weight in (2, 4, 10))]
    assert swept == {f"{name}{divisor}" for name in names for divisor in ("", BY_COUNT)}
    assert {run.condition for run in runs if run.waits} == {"per_label_chosen"}
    titles = {title_of(name) for name in planned}
    assert len(titles) == len(planned)
