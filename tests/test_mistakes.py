"""Mistakes of users on the command line: each is one line that names the key."""

from pathlib import Path

import pytest
from conftest import Command

from mnist_imbalance import study, train
from mnist_imbalance.sweeps import search

MISTAKES = {  # overrides → how the error begins
    "data=none": "data: no choice none; there are augmented_100, augmented_40, augme",
    "data.kep=1": "data.kep: there is no such key; there is data.keep",
    "loss.minority_weight=3": "loss.minority_weight: there is no such key; choose loss=weighted",
    "+modle=cnn": "modle: Extra inputs are not permitted, got 'cnn'",
    "ckpt_path=x": "ckpt_path: there is no such key; no key is like it",
    "seed": "seed: ",
    "loss=null": "loss=null: must be the name of a choice",
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
    "+trainer.overfit_batches=1": "trainer.overfit_batches: cannot be set, a run has its own",
    "+trainer.precision=64": "trainer.precision: Input should be '32-true', '16-mixed' or",
    "trainer.test_with=best": "trainer.test_with: best needs callbacks=checkpoint_best",
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
    "scheduler=step scheduler.step_size=abc": "scheduler: ",
    "metrics=mcc metrics.mcc.task=x": "metrics.mcc: ",
    "metrics=calibration metrics.nll_minority.of=minorty": "metrics.nll_minority: of must",
    "+metrics.loss._target_=torch.nn.CrossEntropyLoss": "metrics.loss: is a record's own name",
    "model._target_=builtins.dict": "model: must be a Module, is a dict",
    "optimizer._target_=no.such": "optimizer: Error loading 'no.such'",
    "+optimizer.speed=1": "optimizer: SGD.__init__() got an unexpected keyword argument",
    "+callbacks.x=1": "callbacks.x: must be a part with its _target_, got 1",
    "logger=mlflow logger.mlflow.tracking_uri=http://localhost:1": "logger.mlflow: ",
    "+posthoc._target_=builtins.print +posthoc._partial_=true": "posthoc: must return a Module",
    "posthoc=crt": "model: its last linear layer must give the logits",
    "data.copies=[" + ",".join(["{angle: 1, noise: 0.1}"] * 20) + "]": "runs_dir: ",
    "optimizer.lr=1e9": "optimizer.lr: the val loss is nan in epoch 0",
    "runs_dir=README.md": "runs_dir: README.md",
}
KEY = "loss.minority_weight"
MISTAKES |= {  # of other commands, which come first
    "study study.seeds=[]": "study.seeds: List should have at least 1 item",
    "study study.seeds=[-1]": "study.seeds.0: Input should be greater than or equal to 0",
    "study study.experiments=weight_sweep": "study.experiments: Input should be a valid list",
    "study study.experiments=[nowhere]": "experiment: no choice nowhere; there are ",
    "study study.experiments=[]": "study.experiments: nothing to do",
    "study study.overrides=['seed=7']": "study.overrides: seed is set by the study or per_label",
    "study study.overrides=['+model=cnn']": "study.overrides: model is set by the study or per_l",
    "study study.overrides=['trainer.max_epochs=one']": "trainer.max_epochs: Input should",
    "study study.experiments=[methods_lstm] study.tuned_at=['data.keep=0.5'] "
    "+study.methods.mine=['optimizer.lr=1,2']": "study.tuned_at: methods_lstm does not sweep",
    "study records_dirs=[nowhere]": "records_dirs: there is no folder nowhere;",
    "study study.report_dir=README.md/report": "study.report_dir: /",
    "study hydra.mode=MULTIRUN": "hydra.mode: a study has no sweep of its own",
    "search seed=0": "search.space: Input should be a valid dictionary",
    f"search search.space={{{KEY}: []}}": f"search.space.{KEY}: ",
    f"search search.space={{{KEY}: 5}}": f"search.space.{KEY}.list[any]: Input should be a",
    f"search search.space={{{KEY}: {{low: 1}}}}": f"search.space.{KEY}: IntDistribution",
    f"search search.space={{{KEY}: {{low: 5, high: 1}}}}": f"search.space.{KEY}: `low <= high`",
    f"search search.space={{{KEY}: {{low: 1, high: x}}}}": f"search.space.{KEY}: ",
    "search search.space={no.such: [1]}": "no.such: there is no such key; no key is like it",
    "search search.space={loss: [plain,bogus]}": "loss: no choice bogus; there are ",
    "search search.space={loss: [weighted,ldam]}": "model.head: ldam needs cosine",
    "search search.space={optimizer.lr: {low: -1.0, high: 1}}": "optimizer.lr: Input should be gre",
    "search experiment=weight_sweep": "experiment: an overlay that sweeps cannot be searched",
    "search hydra.mode=MULTIRUN": "hydra.mode: a search has no sweep of its own",
}
COMMANDS = {"train": train, "study": study, "search": search}
USUAL = {
    "train": ["data/source=debug", "trainer=cpu", "trainer.max_epochs=1"],
    "study": ["study.experiments=[per_label]", "study.extensions=[]", "records_dirs=[]"],
    "search": ["data/source=debug", "loss=weighted", "hydra/launcher=basic"],
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_is_one_line_and_leaves_nothing(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str, message: str
) -> None:
    name, _, overrides = words.partition(" ")
    if name not in COMMANDS:
        name, overrides = "train", words
    given = [overrides] if "{" in overrides else overrides.split()
    with pytest.raises(SystemExit) as stopped:
        command(COMMANDS[name].main, *USUAL[name], f"runs_dir={tmp_path}/r", *given)
    assert isinstance(stopped.value.code, str)  # goes to stderr, with exit code 1
    assert stopped.value.code.startswith(f"error: {message}")
    assert "\n" not in stopped.value.code
    assert ("(HYDRA_FULL_ERROR=1" in stopped.value.code) == message.endswith(": TypeError: ")
    assert "Error executing job" not in capsys.readouterr().err  # Hydra's
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name[0] != "."]
    assert {path.name for path in files} <= {"multirun.yaml"}
