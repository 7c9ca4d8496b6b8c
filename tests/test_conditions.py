"""What a condition is called, by the code and for a reader."""

from typing import Any

import pytest
from handmade import study_of

from mnist_imbalance.conditions import changes, name_condition
from mnist_imbalance.report.tables import BY_COUNT, COMPARED, HEADLINE, REMEDIES
from mnist_imbalance.report.words import title as title_of

PLAIN = {
    **{"data.keep": 0.1, "loss.minority_weight": 7, "loss.weights": "???"},
    **{"seed": -1, "data.seed": -1, "data.order_seed": -1},
    **{"trainer.max_epochs": 50, "trainer.max_steps": -1},
}


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({}, {}),
        ({"data.keep": 0.05}, {"data.keep": 0.05}),
        ({"loss.minority_weight": 7.0}, {}),
        ({"loss.weights": [2, 1]}, {}),  # had to be given
        ({"seed": 4, "data.seed": 5, "data.order_seed": 6}, {}),
        ({"trainer.max_epochs": -1, "trainer.max_steps": 46600}, {}),
        ({"model.depth": 3}, {"model.depth": 3}),
        (
            {"loss.minority_weight": 3, "data.keep": 1},
            {"data.keep": 1, "loss.minority_weight": 3},
        ),
    ],
)
def test_changes_are_what_is_not_as_the_choices_have_it(
    values: dict[str, Any], changed: dict[str, Any]
) -> None:
    found = changes(PLAIN | values, PLAIN)
    assert found == changed
    assert list(found) == sorted(found)


def test_a_value_that_is_gone_is_a_change() -> None:
    rest = {key: value for key, value in PLAIN.items() if key != "data.keep"}
    assert changes(rest, PLAIN) == {"data.keep": None}


@pytest.mark.parametrize(
    ("data", "loss", "changed", "name"),
    [
        ("imbalanced", "plain", {}, "imbalanced"),
        ("original", "plain", {}, "original"),
        ("imbalanced", "weighted", {}, "weighted"),
        ("imbalanced", "per_label", {}, "per_label"),
        ("augmented_40", "weighted", {}, "augmented_40, weighted"),
        ("imbalanced", "plain", {"data.keep": 1}, "imbalanced, data.keep=1"),
        (
            "imbalanced",
            "weighted",
            {"loss.minority_weight": 3, "loss.normalize": "count"},
            "weighted, loss.minority_weight=3, loss.normalize=count",
        ),
    ],
)
def test_a_condition_is_named_by_what_was_done(
    data: str, loss: str, changed: dict[str, Any], name: str
) -> None:
    assert name_condition({"data": data, "loss": loss, "model": "lstm"}, changed) == name


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
