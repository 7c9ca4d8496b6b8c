"""Mistakes of users on the command line: each is one line that names the key."""

import sys
from pathlib import Path

import pytest

from mnist_imbalance import train

MISTAKES = {  # overrides → how the error begins
    "data=none": "data: no choice none; there are augmented_100, augmented_40, augme",
    "data.kep=1": "Could not override 'data.kep'",
    "+modle=cnn": "modle: Extra inputs are not permitted, got 'cnn'",
    "ckpt_path=x": "Could not override 'ckpt_path'",
    "seed": "seed: ",
    "logger=null": "logger=null: must be the name of a choice, or [a,b]",
    "loss=[plain,weighted]": "loss: must be one choice, loss=name",
    "experiment=normalize": "experiment: this overlay sweeps loss.minority_weight, loss.no",
    "runs_dir=3": "runs_dir: Input should be a valid string, got 3",
    "optimizer.lr=0": "optimizer.lr: Input should be greater than 0, got 0",
    "trainer.max_epochs=0": "trainer.max_epochs, trainer.max_steps: above 0, or one of them -1",
    "trainer.devices=2": "trainer.devices: Input should be 1, got 2",
    "+trainer.limit_val_batches=0": "trainer.limit_val_batches: Input should be gre",
    "trainer.accelerator=none": "trainer: You selected an invalid accelerator name",
    "+trainer.max_time=soon": "trainer.max_time: ",
    "+trainer.logger=false": "trainer.logger: cannot be set, a run has its own",
    "+trainer.accumulate_grad_batches=x": "trainer, callbacks: TypeError: ",
    "data.keep=1.7": "data.keep: must keep 1 to all of the 80 images of label 0 that",
    "data.copies=[{angle: 3}]": "data.copies.0.noise: Field required",
    "data.transforms=[RandomRotation]": "data.transforms.0: Input should be callable, got",
    "data.val_fraction=2": "data.val_fraction: Input should be less than 1, got 2",
    "data.minority=wrong": "data.minority: 'str' instances are not allowed as a Seq",
    "data/source=npz": "data.source.file: Missing required argument",
    "data.dir=README.md": f"data.dir: {Path('README.md').absolute()} has no complete MNIST in ",
    "data.sampler._target_=builtins.len": "data.sampler: ",
    "~data._target_": "data: must be a MNISTData, is a dict",
    "loss=weighted loss.minority_weight=-1": "loss.minority_weight: Input should be gr",
    "loss=per_label loss.weights=[1,2]": "loss: weight tensor should be defined either for all 10",
    "loss=per_label_chosen": "loss.weights: a value must be given",
    "+loss.reduction=none": "loss: must give one number for a batch",
    "+loss.label_smoothing=2": "loss: label_smoothing must be between 0.0 and 1.0",
    "mix=mixup mix.alpha=0": "mix.alpha: ",
    "metrics=mcc metrics.mcc.task=x": "metrics.mcc: ",
    "model._target_=builtins.dict": "model: must be a Module, is a dict",
    "optimizer._target_=no.such": "optimizer: Error loading 'no.such'",
    "+optimizer.speed=1": "optimizer: SGD.__init__() got an unexpected keyword argument",
    "+callbacks.x=1": "callbacks.x: must be a part with its _target_, got 1",
    "logger=mlflow logger.mlflow.tracking_uri=http://localhost:1": "logger.mlflow: ",
    "+posthoc._target_=builtins.print +posthoc._partial_=true": "posthoc: must return a Module",
    "posthoc=crt": "model: its last linear layer must give the logits",
    "data.copies=[" + ",".join(["{angle: 1, noise: 0.1}"] * 20) + "]": "runs_dir: ",
    "optimizer.lr=1e9": "optimizer.lr: the val loss is nan in epoch 0",
}


@pytest.mark.parametrize(("overrides", "message"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_is_one_line_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, overrides: str, message: str
) -> None:
    given = [overrides] if "{" in overrides else overrides.split()
    short = ["data/source=debug", "trainer=cpu", "trainer.max_epochs=1", f"runs_dir={tmp_path}/r"]
    monkeypatch.setattr(sys, "argv", ["train", *short, *given])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SystemExit) as stopped:
        train.main()
    assert isinstance(stopped.value.code, str)  # goes to stderr, with exit code 1
    assert stopped.value.code.startswith(f"error: {message}")
    assert "\n" not in stopped.value.code
    assert ("(HYDRA_FULL_ERROR=1" in stopped.value.code) == message.endswith(": TypeError: ")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name[0] != "."]


def test_a_place_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    monkeypatch.setattr(sys, "argv", ["train", f"runs_dir={tmp_path / 'runs'}"])
    with pytest.raises(SystemExit, match=r"^error: runs_dir: .*: Not a directory$"):
        train.main()
