"""Run records with known accuracies."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy

from mnist_imbalance.plan import PlannedRun, Study, StudyKeys, plan, read_study
from mnist_imbalance.published import GROUPS
from mnist_imbalance.runs import Result, RunFolder, Seconds, hash_config
from mnist_imbalance.scores import Scores

IMAGES = 1000  # of each label
STEPS_PER_EPOCH = {
    **dict.fromkeys(("original", "augmented_100", "duplicated_100"), 430),
    **dict.fromkeys(("noise_100", "rotation_100"), 430),
    **dict.fromkeys(("augmented_40", "duplicated_40"), 298),
    "augmented_original": 4297,
}


def scores(per_label: Sequence[float], positive: Sequence[int] = (IMAGES,) * 10) -> Scores:
    """Scores in which every label's errors are taken for the next label."""
    confusion = [[0] * 10 for _ in range(10)]
    for label, accuracy in enumerate(per_label):
        confusion[label][label] = round(IMAGES * accuracy)
        confusion[label][(label + 1) % 10] = IMAGES - round(IMAGES * accuracy)
    return Scores(confusion=confusion, loss=0.5, positive=list(positive))


def groups(minority: float, majority: float) -> list[float]:
    return [minority] * 5 + [majority] * 5


def study_of(*overrides: str) -> tuple[StudyKeys, list[PlannedRun]]:
    keys = read_study(overrides)
    return keys, planned(keys.study.model_dump_json())


@cache
def planned(study: str) -> list[PlannedRun]:
    """The runs of the values of a study; a plan takes seconds."""
    return plan(Study.model_validate_json(study))


def result_of(
    choices: Mapping[str, str],
    values: Mapping[str, Any],
    test: Scores,
    val: Scores | None = None,
    train: Scores | None = None,
    condition: str = "imbalanced",
) -> Result:
    """A finished run; validation and training are like the test if not given."""
    per_epoch = STEPS_PER_EPOCH.get(choices["data"], 233)
    last = values.get("trainer.max_steps", -1)
    epochs = values["trainer.max_epochs"]
    steps = min(end for end in (per_epoch * epochs, last) if end > 0)
    return Result(
        config_hash=hash_config(values),
        condition=condition,
        model=choices["model"],
        data=choices["data"],
        loss=choices["loss"],
        optimizer=choices["optimizer"],
        seed=values["seed"],
        data_seed=values["data.seed"],
        epochs=ceil(steps / per_epoch),
        steps=steps,
        train_counts=[per_epoch * values["data.batch_size"] // 10] * 10,
        groups={name: list(labels) for name, labels in GROUPS.items()},
        data_sha256="0" * 64,
        train=train or test,
        val=val or test,
        test=test,
        seconds=Seconds(fit=100.0, test=1.0),
        device="cpu",
        threads=1,
        versions={"python": "3", "torch": "2"},
        config=dict(values),
    )


def predict(scores: Scores) -> numpy.ndarray:
    """Predicted labels, (N,), that give the scores' confusion matrix; label by label."""
    confusion = numpy.array(scores.confusion)
    columns = numpy.tile(numpy.arange(len(confusion)), len(confusion))
    return numpy.repeat(columns, confusion.ravel()).astype(numpy.uint8)


def finish(folder: RunFolder, result: Result) -> None:
    """Keep a finished run, as if its last epoch alone had been scored."""
    last = result.epochs - 1
    history = {"train": {last: result.train}, "val": {last: result.val}}
    predictions = {"val": predict(result.val), "test": predict(result.test)}
    folder.finish(result, history, predictions)


def write_record(root: Path, run: PlannedRun, test: Scores, **others: Scores) -> Path:
    """Keep a finished run below a root; its scores are those of `result_of`."""
    result = result_of(run.choices, run.config, test, **others, condition=run.condition)
    folder = RunFolder(root / run.config_hash[:12])
    finish(folder, result)
    return folder.path


def write_study(
    root: Path, runs: Sequence[PlannedRun], reached: Callable[[PlannedRun], Scores | None]
) -> None:
    """Keep what every run reached; None leaves it missing."""
    for run in runs:
        test = None if run.waits else reached(run)
        if test:
            write_record(root, run, test)


def write_groups(
    root: Path, minority: Callable[[PlannedRun], float | None], *overrides: str
) -> tuple[StudyKeys, list[PlannedRun]]:
    """Keep a study whose labels 0-4 reach what is said and 5-9 all 0.9; None is missing."""
    overrides = (*overrides, "study.extensions=[]", f"runs_dir={root}", "records_dirs=[]")
    keys, runs = study_of(*overrides)

    def reached(run: PlannedRun) -> Scores | None:
        accuracy = minority(run)
        return None if accuracy is None else scores(groups(accuracy, 0.9))

    write_study(root, runs, reached)
    return keys, runs
