from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.load import load_run
from mnist_imbalance.runs import RunFolder

SHORT = ("data/source=debug", "trainer=cpu", "trainer.max_epochs=1", "loss=weighted")


@pytest.mark.parametrize("model", ["lstm", "cnn"])
def test_a_loaded_run_predicts_what_its_record_holds(
    train_here: Callable[..., Path], model: str
) -> None:
    folder = train_here(*SHORT, f"model={model}", "optimizer=adam")
    run = load_run(folder)
    images, labels = run.data.test
    with torch.inference_mode():
        predicted = run.classifier(images / 255).argmax(dim=1)
    kept = RunFolder(folder).predictions()
    assert kept is not None and run.result is not None
    assert predicted.tolist() == kept["test"].tolist()
    assert (predicted == labels).float().mean().item() == pytest.approx(run.result.test.accuracy)
    assert run.config.loss.minority_weight == 7


def test_a_run_of_an_earlier_version_is_named(train_here: Callable[..., Path]) -> None:
    folder = RunFolder(train_here(*SHORT))
    config = OmegaConf.load(folder.config_file)
    del config.data["minority"]
    OmegaConf.save(config, folder.config_file)
    with pytest.raises(ConfigError, match="written by an earlier version"):
        load_run(folder.path)
    folder.config_file.write_text("data: [")
    with pytest.raises(ConfigError, match="its config cannot be read"):
        load_run(folder.path)


def test_what_is_no_run_is_named(train_here: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run folder with a checkpoint, .*config\.yaml is"):
        load_run(tmp_path / "nothing")
    folder = train_here(*SHORT)
    RunFolder(folder).last_checkpoint.unlink()
    with pytest.raises(ConfigError, match=r"no run folder with a checkpoint, .*last\.ckpt is"):
        load_run(folder)
