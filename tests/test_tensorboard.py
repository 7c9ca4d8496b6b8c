import re
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from test_batched import make_run

from mnist_imbalance.fit import fit_run
from mnist_imbalance.tensorboard import draw_confusion, lay_out


def test_the_confusion_matrix_shows_shares_of_the_true_labels() -> None:
    (axes,) = draw_confusion([[3, 1, 0], [0, 0, 0], [1, 0, 999]]).axes
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "75", (1, 0): "25", (2, 2): "100"}  # 0.1 % is not worth a number
    assert "true" in axes.get_ylabel()
    assert "predicted" in axes.get_xlabel()


def test_the_grid_has_a_row_a_label() -> None:
    images = torch.arange(8, dtype=torch.uint8).reshape(8, 1, 1, 1).expand(8, 1, 28, 28) * 10
    grid = lay_out(images, columns=4)
    assert grid.shape == (3, 2 * 114 + 2, 4 * 114 + 2)
    centres = grid[0, 58::114, 58::114]
    assert centres.flatten().tolist() == [10 * n for n in range(8)]


def test_what_tensorboard_opens_on_and_lists_first(tmp_path: Path) -> None:
    """Read back from the event file of a run."""
    overrides = ["data/source=debug", "trainer.max_epochs=2", "trainer.accelerator=cpu"]
    run = make_run(tmp_path, *overrides, "loss=weighted", "loss.minority_weight=3")
    result = fit_run(run.config, run.hydra, run.folder, show_progress=False)
    events = EventAccumulator(str(run.folder.tensorboard)).Reload()

    tags = sorted(tag for kind in ("scalars", "images") for tag in events.Tags()[kind])
    assert tags[:4] == ["1_val/accuracy", "1_val/accuracy_0_4", "1_val/accuracy_5_9", "1_val/loss"]
    assert tags[-2:] == ["5_test/loss", "6_data/copies"]
    assert [tag for tag in tags if tag.endswith("confusion")] == ["5_test/confusion"]
    assert [point.step for point in events.Scalars("1_val/loss")] == [0, 1]

    content = events.summary_metadata["custom_scalars__config__"].plugin_data
    assert content.plugin_name == "custom_scalars"
    (layout,) = events.Tensors("custom_scalars__config__")
    charts = Layout.FromString(layout.tensor_proto.string_val[0]).category[0].chart
    assert [chart.title for chart in charts] == ["loss", "accuracy", "accuracy_0_4", "accuracy_5_9"]
    for chart in charts:  # regular expressions
        matched = [tag for tag in tags if any(re.search(each, tag) for each in chart.multiline.tag)]
        assert matched == [f"1_val/{chart.title}", f"3_train/{chart.title}"]

    def of_hparams(name: str) -> HParamsPluginData:
        content = events.summary_metadata[f"_hparams_/{name}"].plugin_data.content
        return HParamsPluginData.FromString(content)

    chosen = of_hparams("session_start_info").session_start_info.hparams
    first = sorted(chosen)[:5]  # as TensorBoard sorts them, and those that it ticks
    assert first == ["condition", "loss", "loss.minority_weight", "loss.normalize", "model"]
    assert chosen["condition"].string_value == result.condition
    assert chosen["loss.minority_weight"].number_value == 3
    scores = [info.name.tag for info in of_hparams("experiment").experiment.metric_infos]
    assert scores == [tag for tag in tags if re.match("1_val/|5_test/[^c]", tag)]
