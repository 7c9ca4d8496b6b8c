"""Every part works with every other: all combinations on a few images of each label."""

from itertools import product
from pathlib import Path

import pytest
from test_batched import make_run

from mnist_imbalance.fit import fit_run

CHOICES = {
    "model": ["lstm", "cnn"],
    "loss": ["plain", "weighted", "per_label"],
    "data/profile": ["step", "none"],
    "data/copies": ["unchanged", "augmented_40", "noise_100"],
}
MORE = {
    "loss": ["vs", "ldam_drw", "focal"],
    "data/profile": ["exponential"],
    "data/sampler": ["balanced", "square_root", "progressive"],
}
COSINE = ("model.head=cosine", "model.output_bias=null", "model.output_relu=false")
SHORT = ("data/source=debug", "trainer=cpu", "trainer.max_epochs=1", "metrics=mcc")


@pytest.mark.parametrize("combination", list(product(*CHOICES.values())), ids=",".join)
def test_a_combination_is_trained_and_scored(tmp_path: Path, combination: tuple[str, ...]) -> None:
    chosen = [f"{group}={choice}" for group, choice in zip(CHOICES, combination, strict=True)]
    run = make_run(tmp_path, *SHORT, *chosen)
    result = fit_run(run.config, run.hydra, run.folder, show_progress=False)
    assert [sum(row) for row in result.test.confusion] == [100] * 10
    *_, profile, copies = combination
    kept = 8 if profile == "step" else 80
    times = {"unchanged": 1, "augmented_40": 4, "noise_100": 10}[copies]
    assert result.train_counts == [kept * times] * 5 + [80] * 5
    assert ("data/source=debug" in result.condition) and "mcc" in result.test.metrics


@pytest.mark.parametrize("combination", list(product(*MORE.values())), ids=",".join)
def test_methods_work_with_samplers_and_profiles(
    tmp_path: Path, combination: tuple[str, ...]
) -> None:
    chosen = [f"{group}={choice}" for group, choice in zip(MORE, combination, strict=True)]
    run = make_run(tmp_path, *SHORT, *COSINE, *chosen, "data.keep.ratio=10", "data.shots=[20,40]")
    result = fit_run(run.config, run.hydra, run.folder, show_progress=False)
    assert result.train_counts[0] == 10 * result.train_counts[-1] == 80
    assert list(result.groups) == ["few", "medium", "many", "all"]
    assert sum(map(sum, result.train.confusion)) == sum(result.train_counts)
