"""What a CUDA device must do as a CPU does."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from test_batched import DIFFERENT, make_run

from mnist_imbalance.batched.fit import (
    Run,
    StackedClassifier,
    StackedData,
    fit_side_by_side,
)
from mnist_imbalance.batched.stacked import Stacked
from mnist_imbalance.fit import build_parts, fit_run, make_trainer
from mnist_imbalance.models.lstm import RowLSTM
from mnist_imbalance.runs import Result

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SHORT = ("trainer.max_epochs=2", "+trainer.limit_train_batches=50")
AGREE = 0.002  # of the test accuracy and loss after 100 steps


@pytest.mark.parametrize("model", ["lstm", "cnn"])
@pytest.mark.parametrize("data", ["imbalanced", "augmented_40"])
def test_cpu_and_gpu_agree(tmp_path: Path, model: str, data: str) -> None:
    results = []
    for accelerator in ("cpu", "gpu"):
        choices = (f"model={model}", f"data={data}", "loss=weighted", f"trainer={accelerator}")
        scored = "metrics=[labels,calibration,auroc]"
        run = make_run(tmp_path / accelerator, *SHORT, *choices, scored)
        results.append(fit_run(run.config, run.hydra, run.folder, show_progress=False))
    cpu, gpu = results
    assert gpu.device.startswith("cuda, ")
    assert gpu.train_counts == cpu.train_counts
    assert gpu.test.accuracy == pytest.approx(cpu.test.accuracy, abs=AGREE)
    assert gpu.test.loss == pytest.approx(cpu.test.loss, abs=AGREE)
    assert gpu.test.metrics == pytest.approx(cpu.test.metrics, abs=5 * AGREE)  # of few images


@pytest.mark.parametrize("model", ["lstm", "cnn"])
def test_side_by_side_on_a_gpu_is_alone_on_a_gpu(tmp_path: Path, model: str) -> None:
    def runs(place: str) -> list[Run]:
        root = tmp_path / place
        return [make_run(root, f"model={model}", "trainer=gpu", *SHORT, *own) for own in DIFFERENT]

    outcomes = fit_side_by_side(runs("together"), show_progress=False)
    for run, reached in zip(runs("alone"), runs("together"), strict=True):
        alone = fit_run(run.config, run.hydra, run.folder, show_progress=False)
        together = outcomes[reached.folder.path]
        assert isinstance(together, Result), together
        assert "cuda" in together.device and "side by side" in together.device
        assert together.test.accuracy == pytest.approx(alone.test.accuracy, abs=AGREE)
        assert together.test.loss == pytest.approx(alone.test.loss, abs=AGREE)


def test_a_replayed_lstm_is_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    models = [RowLSTM(10, output_relu=False).to("cuda") for _ in range(3)]
    stacked = Stacked(models, [3]).to("cuda")
    [template] = stacked.template
    lstm: Any = template.get_submodule("lstm")
    for _ in range(5):
        images = torch.rand(3, 32, 1, 28, 28, device="cuda")
        logits = torch.stack([model(own) for model, own in zip(models, images, strict=True)])
        together = stacked(images)
        torch.testing.assert_close(together, logits, atol=1e-4, rtol=1e-4)
        for each in (stacked, *models):
            each.zero_grad()
        logits.square().sum().backward()
        together.square().sum().backward()
        [part] = stacked.parts
        for name, parameter in part.named_parameters():
            for number, model in enumerate(models):
                expected: Any = model.get_parameter(name).grad
                actual: Any = parameter.grad
                torch.testing.assert_close(actual[number], expected, atol=1e-3, rtol=1e-3)
    assert lstm.mapped.recorded


class Strict(lightning.Callback):
    """Makes every synchronisation within a step an error."""

    def on_train_batch_start(self, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("model", ["lstm", "cnn"])
@pytest.mark.parametrize("together", [False, True])
def test_an_epoch_does_not_wait_for_the_device(tmp_path: Path, model: str, together: bool) -> None:
    choices = (f"model={model}", "trainer=gpu", *SHORT)
    runs = [make_run(tmp_path, *choices, *own) for own in DIFFERENT]
    trainer = make_trainer(runs[0].config, runs[0].folder, None, [Strict()])
    data: lightning.LightningDataModule
    classifier: lightning.LightningModule
    if together:
        datas, classifiers = zip(*(build_parts(run.config) for run in runs), strict=True)
        data = StackedData(datas)
        classifier = StackedClassifier(classifiers, [run.optimizer_keys for run in runs])
    else:
        data, classifier = build_parts(runs[0].config)
    trainer.fit(classifier, datamodule=data)
    assert trainer.current_epoch == 2


def test_a_diverging_run_takes_no_other_with_it_on_a_gpu(tmp_path: Path) -> None:
    choices = ("model=cnn", "trainer=gpu", *SHORT)
    good = make_run(tmp_path, *choices, "optimizer.lr=0.01")
    bad = make_run(tmp_path, *choices, "optimizer.lr=1e30")
    outcomes = fit_side_by_side([bad, good], show_progress=False)
    assert isinstance(outcomes[good.folder.path], Result)
    assert "loss is nan" in str(outcomes[bad.folder.path])
