"""The models, against AI3607's description."""

from typing import Any

import pytest
import torch
from torch import nn

from mnist_imbalance.errors import ConfigError
from mnist_imbalance.models.cnn import LeNet5
from mnist_imbalance.models.lstm import RowLSTM


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "parameters"), [(RowLSTM, 44_042), (LeNet5, 61_706)])
def test_shapes_and_parameter_counts(kind: Any, parameters: int, images: torch.Tensor) -> None:
    model: nn.Module = kind(10)
    assert model(images).shape == (5, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    small = kind(num_classes=4, image_shape=(3, 32, 20))
    assert small(torch.rand(2, 3, 32, 20)).shape == (2, 4)


def test_the_feature_is_the_last_hidden_unit_at_every_row(images: torch.Tensor) -> None:
    model = RowLSTM(10)
    state: tuple[torch.Tensor, torch.Tensor] | None = None
    for row in range(28):
        output, state = model.lstm(images[:, 0, row : row + 1, :], state)
        torch.testing.assert_close(model.feature(images)[:, row], output[:, 0, 63])


def test_output_relu_leaves_nothing_below_zero(images: torch.Tensor) -> None:
    literal = RowLSTM(10, output_bias=-0.01, output_relu=True)
    linear = RowLSTM(10, output_bias=-0.01, output_relu=False)
    linear.load_state_dict(literal.state_dict())
    assert literal(images).min() == 0
    assert linear(images).min() < 0
    torch.testing.assert_close(literal(images), linear(images).clamp(min=0))


def test_the_output_bias_starts_at_its_value() -> None:
    bias: Any = RowLSTM(10, output_bias=5.0).head[2].bias
    assert (bias == 5).all()
    default: Any = RowLSTM(10, output_bias=None).head[2].bias
    assert default.abs().max() <= 512**-0.5  # PyTorch's bound for a layer with 512 inputs


def test_the_cnn_has_relu_and_maxima_alone(images: torch.Tensor) -> None:
    model = LeNet5(10)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        torch.testing.assert_close(model(2 * images), 2 * model(images))


def test_impossible_values_are_named() -> None:
    with pytest.raises(ConfigError, match=r"^model\.head: .* add model\.output_bias=null"):
        RowLSTM(10, head="cosine")
    with pytest.raises(ConfigError, match=r"^model: .*12 × 12 pixels, got 8 × 8$"):
        LeNet5(10, image_shape=(1, 8, 8))
