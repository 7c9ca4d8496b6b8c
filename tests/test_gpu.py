"""What a CUDA device must do as a CPU does."""

from pathlib import Path

import lightning
import pytest
import torch
from test_batched import DIFFERENT, make_run

from mnist_imbalance.batched.training import Run, train_side_by_side
from mnist_imbalance.runs import Result
from mnist_imbalance.training import build_parts, make_trainer, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SHORT = ("trainer.max_epochs=2", "+trainer.limit_train_batches=50")
AGREE = 0.002  # of the test accuracy and loss after 100 steps


@pytest.mark.parametrize("model", ["lstm", "cnn"])
@pytest.mark.parametrize("data", ["imbalanced", "augmented_40"])
def test_cpu_and_gpu_agree(tmp_path: Path, model: str, data: str) -> None:
    results = []
    for accelerator in ("cpu", "gpu"):
        choices = (f"model={model}", f"data={data}", "loss=weighted", f"trainer={accelerator}")
        run = make_run(tmp_path / accelerator, *SHORT, *choices)
        results.append(train(run.config, run.hydra, run.folder, show_progress=False))
    cpu, gpu = results
    assert gpu.device.startswith("cuda, ")
    assert gpu.train_counts == cpu.train_counts
    assert gpu.test.accuracy == pytest.approx(cpu.test.accuracy, abs=AGREE)
    assert gpu.test.loss == pytest.approx(cpu.test.loss, abs=AGREE)


@pytest.mark.parametrize("model", ["lstm", "cnn"])
def test_side_by_side_on_a_gpu_is_alone_on_a_gpu(tmp_path: Path, model: str) -> None:
    def runs(place: str) -> list[Run]:
        root = tmp_path / place
        return [make_run(root, f"model={model}", "trainer=gpu", *SHORT, *own) for own in DIFFERENT]

    outcomes = train_side_by_side(runs("together"), show_progress=False)
    for run in runs("alone"):
        alone = train(run.config, run.hydra, run.folder, show_progress=False)
        together = outcomes[run.config_hash]
        assert isinstance(together, Result)
        assert "cuda" in together.device and "side by side" in together.device
        assert together.test.accuracy == pytest.approx(alone.test.accuracy, abs=AGREE)
        assert together.test.loss == pytest.approx(alone.test.loss, abs=AGREE)


def test_an_epoch_does_not_wait_for_the_device(tmp_path: Path) -> None:
    """Every synchronisation within the steps is an error."""
    run = make_run(tmp_path, "trainer=gpu", *SHORT)

    class Strict(lightning.Callback):
        def on_train_batch_start(self, *_: object) -> None:
            torch.cuda.set_sync_debug_mode("error")

        def on_train_batch_end(self, *_: object) -> None:
            torch.cuda.set_sync_debug_mode("default")

    data, classifier = build_parts(run.config)
    trainer = make_trainer(run.config, run.folder, None, [Strict()])
    data.trainer = trainer
    trainer.fit(classifier, datamodule=data)
    assert trainer.current_epoch == 2
