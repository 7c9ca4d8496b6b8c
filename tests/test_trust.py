"""Whose files a run trusts: what their configs may call, and what makes two runs one."""

from pathlib import Path

import pytest
import torch
from conftest import composed, fitted
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from mnist_imbalance import Classifier, load_run
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import hash_config, result_config

STRANGERS = [
    {"_target_": "torch.load", "f": "evil.pt", "weights_only": False},
    {"_target_": "pathlib.Path.write_text", "self": "evil", "data": "x"},
    {"_target_": "builtins.open", "file": "evil", "mode": "w"},
    {"_target_": "mnist_imbalance.data.sources.io.open", "file": "evil", "mode": "w"},
]


def test_a_folder_calls_nothing_but_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, result = fitted(tmp_path, "model=cnn", "trainer.max_epochs=1")
    config, state = folder.config(), folder.checkpoint()
    del state["config_hash"]  # as in an older checkpoint
    torch.save(state, folder.last_checkpoint)
    monkeypatch.chdir(tmp_path)
    for part in STRANGERS:
        for group in ("model", "data", "posthoc"):
            evil = OmegaConf.merge(config, {group: None}, {group: part})
            OmegaConf.save(evil, folder.config_file)
            with pytest.raises(ConfigError, match="is no part of a run; trust"):
                load_run(folder.path)
        OmegaConf.save(config, folder.config_file)
        torch.save({**state, "hyper_parameters": {"model": part}}, folder.last_checkpoint)
        loads = {folder.path: load_run, folder.last_checkpoint: Classifier.load_from_checkpoint}
        for place, load in loads.items():
            with pytest.raises(ConfigError, match="is no part of a run; trust"):
                load(place)
    torch.save(state, folder.last_checkpoint)
    assert load_run(folder.path).result == result
    assert not [*tmp_path.rglob("evil*")]


def test_own_parts_are_trusted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from mnist_imbalance.models.cnn import LeNet5\nclass Net(LeNet5): ...\n"
    (tmp_path / "my_own.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    folder, _ = fitted(tmp_path, "model._target_=my_own.Net", "model=cnn", "trainer.max_epochs=1")
    with pytest.raises(ConfigError, match=r"^my_own\.Net: is no part of a run; trust my_own"):
        load_run(folder.path)
    assert type(load_run(folder.path, trust=["my_own"]).classifier.model).__name__ == "Net"


def key_of(*overrides: str) -> str:
    return hash_config(result_config(composed(*overrides)))


def test_equal_values_are_one_run(tmp_path: Path) -> None:
    assert len({key_of("loss=weighted", f"loss.minority_weight={w}") for w in (3, 3.0)}) == 1
    assert key_of("data.minority=[1,0]") == key_of("data.minority=[0,1]")
    assert key_of("trainer.log_every_n_steps=1") == key_of()
    assert key_of("trainer.test_with=best") != key_of() != key_of("model.feature=last_step")
    for words in ("data.copies=[{noise: 0.1, angle: 5}]", "data/transforms=affine"):
        short = ("model=cnn", "trainer.max_epochs=1", words)
        first, again = (fitted(tmp_path, *short)[1] for _ in range(2))
        assert first == again and first.seconds == again.seconds


def test_a_run_keeps_its_first_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["hydra.sweep.subdir=here", "model=cnn", "trainer.max_epochs=2"]
    given += ["loss=weighted", "loss.normalize=${oc.env:BY}"]
    monkeypatch.setenv("BY", "count")
    with pytest.raises(ConfigError, match=r"^trainer\.max_time: stopped after 1 of 2 epochs"):
        fitted(tmp_path, *given, "+trainer.max_time={milliseconds: 1}")
    monkeypatch.setenv("BY", "weight_sum")
    with pytest.raises(ConfigError, match=r"holds a run with other values of loss\.normalize"):
        fitted(tmp_path, *given)


def test_a_second_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # as LOCAL_RANK=1 does
    with pytest.raises(ConfigError, match=r"^LOCAL_RANK: a run is one process"):
        fitted(tmp_path, "model=cnn", "trainer.max_epochs=1")
    assert not [*tmp_path.rglob("*.ckpt")]
