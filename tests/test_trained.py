"""What one does with trained runs: load, adjust, predict, export and replay them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pytest
import torch
from conftest import Command, composed, fitted
from PIL import Image

from mnist_imbalance import load_run
from mnist_imbalance.data import sources
from mnist_imbalance.errors import ConfigError
from mnist_imbalance.records.identity import hash_config, restore, result_config
from mnist_imbalance.records.result import read_predictions
from mnist_imbalance.records.table import read
from mnist_imbalance.report.trained import adjust, export, predict, prepare, replay

ADAM = ("optimizer=adam", "trainer.max_epochs=2", "callbacks=checkpoint_best")
REPLAYED = (
    *("cc6fb5ac", "23a09ecd", "bbf129fc", "b4d14eca", "3d16a67f", "66fbdccf", "1a8cdce0"),
    *("32cf3f5a", "1e159800", "024abdd2", "c41eacd2", "238ab0fe"),
)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(tmp_path_factory.mktemp("runs"), "model=cnn", *ADAM)[0].path


def test_a_model_is_adjusted_and_is_loaded_without_its_images(
    cnn: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = command(adjust, cnn, "posthoc.crt.steps=3", "posthoc.mislas.steps=3").splitlines()
    assert lines[1].split() == ["all", "0-4", "5-9", "NLL", "ECE", "val"]
    assert lines[2].startswith("as trained") and lines[5].startswith("tau_normalized_bias, τ=")
    warmed = fitted(tmp_path, "model=cnn", *ADAM, "posthoc=temperature")[0].path
    with pytest.raises(ConfigError, match="must be a run without a posthoc"):
        command(adjust, warmed)
    monkeypatch.chdir(tmp_path)  # where there is no data/
    assert load_run(cnn).classifier(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    best = torch.load(cnn / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(load_run(cnn, "best").classifier.state_dict(), best)
    monkeypatch.setattr(sources, "load", lambda *_, **__: 1 / 0)  # nothing is downloaded
    with pytest.raises(ConfigError, match=r"^data\.source: "):
        load_run(warmed)


def test_images_are_predicted_as_in_the_test(cnn: Path, tmp_path: Path, command: Command) -> None:
    images = load_run(cnn).data.test[0][::37, 0].numpy()
    predicted = read_predictions(cnn)["test"][::37].tolist()
    (tmp_path / ".hidden").write_text("no image")
    with pytest.raises(ConfigError, match="IMAGES: there is no image"):
        command(predict, cnn, tmp_path)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    found = json.loads(command(predict, cnn, tmp_path, "--json"))
    assert [each["class"] for each in found] == predicted and 0.1 < found[0]["probability"] <= 1
    numpy.save(tmp_path / "all.npy", images[..., None] / 255)
    lines = command(predict, cnn, tmp_path / "all.npy", "--csv").splitlines()[1:]
    assert [int(line.split(",")[1]) for line in lines] == predicted
    (tmp_path / "broken.png").write_bytes((tmp_path / "00.png").read_bytes()[:99])
    with pytest.raises(ConfigError, match=r"/broken\.png: "):
        command(predict, cnn, tmp_path)


def test_images_are_prepared_as_the_data_set_was() -> None:
    for image in sources.read_torchvision(Path("data"), first=1).test[0][:, 0].numpy():
        page = Image.new("RGBA", (400, 300))  # black on what is transparent
        page.paste("black", (220, 90), Image.fromarray(image).resize((140, 140)))
        scan = Image.alpha_composite(Image.new("RGBA", page.size, "#bbb"), page)
        deep = Image.fromarray(numpy.asarray(scan.convert("L")).astype("uint16") << 8)
        for drawing in (page, scan, deep):
            assert abs(prepare(drawing, (1, 28, 28), {})[0].astype(int) - image).mean() < 20
    assert not prepare(Image.new("RGBA", (9, 5)), (1, 28, 28), {}).any()


def test_a_model_is_exported_with_a_card(cnn: Path, tmp_path: Path, command: Command) -> None:
    others = [fitted(tmp_path, f"model={name}", *ADAM)[0].path for name in ("lstm", "resnet")]
    for folder in (cnn, *others):
        printed, run, part = command(export, folder), load_run(folder), torch.rand(7, 1, 28, 28)
        assert printed.endswith(" on 1000 test images\n") and float(printed.split()[-5]) < 1e-4
        program = torch.export.load(folder / "export" / "model.pt2").module()
        session = onnxruntime.InferenceSession(folder / "export" / "model.onnx")
        for logits in (program(part), *session.run(None, {"images": part.numpy()})):
            torch.testing.assert_close(torch.as_tensor(logits), run.classifier(part))
        right = f"| 9 | 80 | 100 | {run.result.test.confusion[9][9]:.1f} ["
        assert right in (folder / "export" / "README.md").read_text()


def test_a_record_is_composed_again_and_replayed(
    cnn: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    usual, (runs, _) = composed("logger=none"), read(["results"])
    for run in runs.drop_duplicates(["model", "loss", "data"]).itertuples():
        assert hash_config(result_config(restore(run.config, usual))) == run.config_hash
    values = json.loads((file := cnn / "result.json").read_text())
    own = f"runs_dir='{cnn.parent}'"
    assert "\nidentical: " in command(replay, values["config_hash"][:9], own)
    values["test"]["loss"], values["versions"]["torch"] = 0, "1.0"
    file.write_text(json.dumps(values | {"class_names": [*"abcdefghij"]}))
    numpy.save(file.with_name("black.npy"), numpy.zeros((28, 28)))
    assert command(predict, cnn, file.with_name("black.npy")).split()[-2] in "abcdefghij"
    with pytest.raises(SystemExit):
        command(replay, cnn)
    assert re.search(r"\ndifferent: (.|\n)*\ntorch: 1\.0, now 2", capsys.readouterr().out)
    with pytest.raises(ConfigError, match="RECORD: 0x must name one record, names 0"):
        command(replay, "0x")


@pytest.mark.slow
@pytest.mark.parametrize("start", REPLAYED)
def test_committed_records_are_replayed(start: str, command: Command, tmp_path: Path) -> None:
    print(command(replay, start, "trainer=cpu", f"runs_dir={tmp_path}"))


@pytest.mark.slow
def test_a_page_computes_alike(chromium: Any, cnn: Path, tmp_path: Path, command: Command) -> None:
    runs, file = [fitted(tmp_path, "model=lstm", *ADAM)[0].path, cnn], tmp_path / "try.html"
    command(export, *runs, "--page", file)
    with chromium.new_context(offline=True, viewport={"width": 390, "height": 800}) as context:
        page = context.new_page()
        page.goto(file.as_uri())
        for x, y in ((90, 60), (210, 60), (120, 250)):  # a seven
            page.locator("#pad").hover(position={"x": x, "y": y})
            page.mouse.down()
        page.mouse.up()
        pixels, logits = torch.tensor(page.evaluate("pixels")), page.evaluate("logits")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.locator("#clear").press("Enter")
        assert page.evaluate("pixels") is None
    for run, found in zip(runs, logits, strict=True):
        own = load_run(run).classifier(pixels.view(1, 1, 28, 28))
        torch.testing.assert_close(torch.tensor([found]), own, rtol=0, atol=1e-4)
