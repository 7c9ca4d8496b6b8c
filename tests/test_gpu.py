"""What a CUDA device must do as a CPU does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_run
from lightning.pytorch.callbacks import LambdaCallback

from mnist_imbalance.models.lstm import RowLSTM
from mnist_imbalance.records.result import Result
from mnist_imbalance.sweeps.batched import Run, StackedClassifier, fit_runs, stack
from mnist_imbalance.sweeps.stacked import Stacked
from mnist_imbalance.training.run import build_parts, build_trainer, run_or_resume

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DIFFERENT = [
    ("loss=weighted", "seed=0"),
    ("loss=weighted", "seed=1", "loss.minority_weight=2"),
    ("loss=weighted", "seed=1", "optimizer.lr=0.01", "data.seed=5"),
]
SHORT = ("trainer.max_epochs=2", "+trainer.limit_train_batches=50")
AGREE = 0.002  # of the test accuracy and loss after 100 steps


@pytest.mark.parametrize("model", ["lstm", "cnn", "resnet"])
@pytest.mark.parametrize("data", ["imbalanced", "augmented_40"])
def test_cpu_and_gpu_agree(tmp_path: Path, model: str, data: str) -> None:
    results = []
    for accelerator in ("cpu", "gpu"):
        choices = (f"model={model}", f"data={data}", "loss=weighted", f"trainer={accelerator}")
        run = make_run(tmp_path / accelerator, *SHORT, *choices, "metrics=[calibration,auroc]")
        results.append(run_or_resume(run.config, run.hydra, run.folder, show_progress=False))
    cpu, gpu = results
    assert gpu.device.startswith("cuda, ")
    assert gpu.train_counts == cpu.train_counts
    assert gpu.test.accuracy == pytest.approx(cpu.test.accuracy, abs=AGREE)
    assert gpu.test.loss == pytest.approx(cpu.test.loss, abs=AGREE)
    assert gpu.test.metrics == pytest.approx(cpu.test.metrics, abs=5 * AGREE)  # of few images


@pytest.mark.parametrize("model", ["lstm", "cnn", "resnet"])
def test_side_by_side_on_a_gpu_is_alone_on_a_gpu(tmp_path: Path, model: str) -> None:
    def runs(place: str, *keys: tuple[str, ...]) -> list[Run]:
        root = tmp_path / place
        return [make_run(root, f"model={model}", "trainer=gpu", *SHORT, *own) for own in keys]

    diverging = ("loss=weighted", "optimizer.lr=1e30")
    *results, failure = fit_runs(runs("together", *DIFFERENT, diverging), show_progress=False)
    assert "loss is nan" in str(failure)
    for run, together in zip(runs("alone", *DIFFERENT), results, strict=True):
        alone = run_or_resume(run.config, run.hydra, run.folder, show_progress=False)
        assert isinstance(together, Result), together
        assert "cuda" in together.device and "side by side" in together.device
        assert together.test.accuracy == pytest.approx(alone.test.accuracy, abs=AGREE)
        assert together.test.loss == pytest.approx(alone.test.loss, abs=AGREE)


def test_a_replayed_lstm_is_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    models = [RowLSTM(10, output_relu=False).to("cuda") for _ in range(3)]
    stacked = Stacked(models, [3]).to("cuda")
    part: Any = stacked.parts[0]
    for _ in range(5):
        images = torch.rand(3, 32, 1, 28, 28, device="cuda")
        logits = torch.stack([model(own) for model, own in zip(models, images, strict=True)])
        together = stacked(images)
        torch.testing.assert_close(together, logits, atol=1e-4, rtol=1e-4)
        for each in (stacked, *models):
            each.zero_grad()
        logits.square().sum().backward()
        together.square().sum().backward()
        for name, parameter in part.named_parameters():
            for number, model in enumerate(models):
                expected: Any = model.get_parameter(name).grad
                actual: Any = parameter.grad
                torch.testing.assert_close(actual[number], expected, atol=1e-3, rtol=1e-3)
    assert part.lstm.graphs


STRICT = LambdaCallback(  # every synchronisation within a step is an error
    on_train_batch_start=lambda *_: torch.cuda.set_sync_debug_mode("error"),
    on_train_batch_end=lambda *_: torch.cuda.set_sync_debug_mode("default"),
    on_exception=lambda *_: torch.cuda.set_sync_debug_mode("default"),
)


@pytest.mark.parametrize("model", ["lstm", "cnn", "resnet"])
@pytest.mark.parametrize("together", [False, True])
def test_an_epoch_does_not_wait_for_the_device(tmp_path: Path, model: str, together: bool) -> None:
    choices = (f"model={model}", "trainer=gpu", *SHORT)
    runs = [make_run(tmp_path, *choices, *own) for own in DIFFERENT]
    trainer = build_trainer(runs[0].config, runs[0].folder, (), [STRICT], show_progress=False)
    parts = [build_parts(run.config) for run in runs]
    if together:
        for part in parts:
            part.data.to(trainer.strategy.root_device)
        train = stack([part.data.train_dataloader() for part in parts])
        val = stack([part.data.val_dataloader() for part in parts])
        trainer.fit(StackedClassifier([part.classifier for part in parts]), train, val)
    else:
        trainer.fit(parts[0].classifier, datamodule=parts[0].data)
    assert trainer.current_epoch == 2
