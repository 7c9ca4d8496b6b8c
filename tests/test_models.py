from typing import Any

import pytest
import torch
from torch import nn

from mnist_imbalance.models.cnn import LeNet5
from mnist_imbalance.models.lstm import RowLSTM


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("model", "parameters"),
    [(RowLSTM(10, output_bias=5.0, output_relu=True), 44_042), (LeNet5(10), 61_706)],
    ids=["lstm", "cnn"],
)
def test_shapes_and_parameter_counts(
    model: nn.Module, parameters: int, images: torch.Tensor
) -> None:
    assert model(images).shape == (5, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_feature_is_the_last_hidden_unit_at_every_row(images: torch.Tensor) -> None:
    model = RowLSTM(10, output_bias=5.0, output_relu=True)
    state: tuple[torch.Tensor, torch.Tensor] | None = None
    for row in range(28):
        output, state = model.lstm(images[:, 0, row : row + 1, :], state)
        torch.testing.assert_close(model.feature(images)[:, row], output[:, 0, 63])


def test_the_rows_are_the_time_steps(images: torch.Tensor) -> None:
    model = RowLSTM(10, output_bias=5.0, output_relu=True)
    changed = images.clone()
    changed[:, :, 20] = 0
    same = (model.feature(images) == model.feature(changed)).all(dim=0)
    assert same[:20].all()
    assert not same[20:].any()


def test_output_relu_leaves_nothing_below_zero(images: torch.Tensor) -> None:
    literal = RowLSTM(10, output_bias=-0.01, output_relu=True)
    linear = RowLSTM(10, output_bias=-0.01, output_relu=False)
    linear.load_state_dict(literal.state_dict())
    assert literal(images).min() == 0
    assert linear(images).min() < 0
    torch.testing.assert_close(literal(images), linear(images).clamp(min=0))


def test_output_bias_starts_where_it_is_told() -> None:
    given: Any = RowLSTM(10, output_bias=5.0, output_relu=True).head[2].bias
    assert (given == 5).all()
    torch.manual_seed(0)
    default: Any = RowLSTM(10, output_bias=None, output_relu=True).head[2].bias
    assert default.abs().max() <= 512**-0.5  # PyTorch's bound for a layer with 512 inputs


def test_the_cnn_is_positively_homogeneous_but_for_its_biases(images: torch.Tensor) -> None:
    model = LeNet5(10)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        torch.testing.assert_close(model(2 * images), 2 * model(images))  # ReLU and maxima alone


@pytest.mark.parametrize("make", [RowLSTM, LeNet5])
def test_shapes_and_classes_are_the_datas(make: type[nn.Module]) -> None:
    images = torch.rand(2, 3, 32, 20)
    assert make(num_classes=4, image_shape=(3, 32, 20))(images).shape == (2, 4)
