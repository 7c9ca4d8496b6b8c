"""Adjustments after training, on a trained run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from mnist_imbalance import adjust
from mnist_imbalance.load import load_run
from mnist_imbalance.posthoc import (
    adjust_logits,
    adjustments,
    best_temperature,
    last_layer,
    tau_normalized,
)

SHORT = ("data/source=debug", "trainer=cpu", "optimizer=adam", "optimizer.lr=0.003")
NO_RELU = ("model.output_relu=false", "model.output_bias=null")


def test_adjusted_logits() -> None:
    logits = torch.tensor([[1.0, 0.0]])
    adjusted = adjust_logits(logits, [90, 10], tau=1)
    assert (adjusted[0, 1] - adjusted[0, 0]).item() == pytest.approx(-1 + 2.197225, abs=1e-5)
    assert torch.equal(adjust_logits(logits, [90, 10], tau=0), logits)


def test_the_temperature_is_found() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=random)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=random).flatten()
    assert best_temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)


def test_adjustments_of_a_trained_run(
    train_here: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = train_here(*SHORT, *NO_RELU, "trainer.max_epochs=15")
    run = load_run(folder)
    model, data = run.classifier.model, run.data
    norms = last_layer(tau_normalized(model, 1, keep_bias=False)).weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(10))
    rows = adjustments(model, data.val, data.test[0], data.class_counts)
    (val, test), *_, (cooled, _) = rows.values()
    assert run.result is not None
    predicted = test.argmax(dim=1)
    assert (predicted == data.test[1]).float().mean() == pytest.approx(run.result.test.accuracy)
    labels = data.val[1]
    assert functional.cross_entropy(cooled, labels) < functional.cross_entropy(val, labels)
    before = folder.stat().st_mtime
    monkeypatch.setattr("sys.argv", ["adjust", f"run='{folder}'"])
    adjust.main()
    shown = capsys.readouterr().out
    assert all(name in shown for name in rows)
    assert f"{100 * run.result.test.balanced_accuracy:.1f}" in shown
    assert folder.stat().st_mtime == before


def test_no_run_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["adjust", f"run={tmp_path}"])
    with pytest.raises(SystemExit, match="no run folder with a checkpoint"):
        adjust.main()
    monkeypatch.setattr("sys.argv", ["adjust"])
    with pytest.raises(SystemExit, match="run"):
        adjust.main()
