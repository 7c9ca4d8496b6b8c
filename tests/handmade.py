"""Run records with known accuracies."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from mnist_imbalance.plan import PlannedRun, StudyKeys, plan, read_study
from mnist_imbalance.runs import Result, RunFolder, Seconds
from mnist_imbalance.scores import Scores

IMAGES = 1000  # of each label


def scores(per_label: Sequence[float], positive: Sequence[int] = (1,) * 10) -> Scores:
    """Scores in which every label's errors are taken for the next label."""
    confusion = [[0] * 10 for _ in range(10)]
    for label, accuracy in enumerate(per_label):
        confusion[label][label] = round(IMAGES * accuracy)
        confusion[label][(label + 1) % 10] = IMAGES - round(IMAGES * accuracy)
    return Scores(confusion=confusion, loss=0.5, positive=list(positive))


def groups(minority: float, majority: float) -> list[float]:
    return [minority] * 5 + [majority] * 5


@cache
def study_of(*overrides: str) -> tuple[StudyKeys, list[PlannedRun]]:
    keys = read_study(overrides)
    return keys, plan(keys.study)


def write_record(
    root: Path,
    run: PlannedRun,
    test: Scores,
    val: Scores | None = None,
    train: Scores | None = None,
) -> Path:
    """Keep a finished run below a root; validation and training are like the test if not given."""
    val, train = val or test, train or test
    choices = {key: run.choices[key] for key in ("model", "data", "loss", "optimizer")}
    result = Result(
        config_hash=run.config_hash,
        **choices,
        seed=run.values["seed"],
        data_seed=run.values["data.seed"],
        epochs=run.values["trainer.max_epochs"],
        train_counts=[1] * 10,
        train=train,
        val=val,
        test=test,
        seconds=Seconds(fit=100.0, test=1.0),
        device="cpu",
        threads=1,
        versions={"python": "3", "torch": "2"},
        config=dict(run.values),
    )
    folder = RunFolder(root / run.config_hash[:12])
    folder.finish(result, {"train": {0: train}, "val": {0: val}})
    return folder.path


def write_study(
    root: Path, runs: Sequence[PlannedRun], reached: Callable[[PlannedRun], Scores | None]
) -> None:
    """Keep what every run reached; None leaves it missing."""
    for run in runs:
        test = None if run.waits else reached(run)
        if test:
            write_record(root, run, test)
