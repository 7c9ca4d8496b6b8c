"""What an epoch holds."""

import pytest
import torch
from test_data import prepared

from mnist_imbalance.data.samplers import by_frequency, progressive, under_sampled

LABELS = torch.arange(3).repeat_interleave(torch.tensor([100, 1_000, 10_000]))


def share(indices: torch.Tensor) -> list[float]:
    return (LABELS[indices].bincount(minlength=3) / len(indices)).tolist()


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("power", "expected"),
    [(0, [1 / 3] * 3), (0.5, [0.0706, 0.2233, 0.7061]), (1, [0.0090, 0.0901, 0.9009])],
)
def test_a_label_is_drawn_as_a_power_of_its_images(power: float, expected: list[float]) -> None:
    drawn = by_frequency(LABELS, power=power, images=50_000, generator=chance())
    assert share(drawn) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("ends", [{"epochs": 11}, {"epochs": 28, "steps": 1050}])
@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, [0.0090, 0.0901, 0.9009]), (5, [0.1712, 0.2117, 0.6171]), (10, [1 / 3] * 3)],
)
def test_progressive_sampling_ends_balanced(
    epoch: int, expected: list[float], ends: dict[str, int]
) -> None:
    drawn = progressive(LABELS, epoch=epoch, generator=chance(), batch_size=111, **ends)
    assert len(drawn) == len(LABELS)
    assert share(drawn) == pytest.approx(expected, abs=0.02)


def test_under_sampling_keeps_the_same_few_of_every_label() -> None:
    first, second = (under_sampled(LABELS, seed=3, generator=chance()) for _ in range(2))
    assert torch.equal(first, second)
    assert len(first) == len(LABELS)
    assert len(first.unique()) == 300
    assert share(first) == pytest.approx([1 / 3] * 3, abs=0.01)
    assert set(first.tolist()) == set(
        under_sampled(LABELS, seed=3, generator=torch.Generator().manual_seed(9)).tolist()
    )
    other = under_sampled(LABELS, seed=4, generator=chance())
    assert set(first.tolist()) != set(other.tolist())


def test_a_sampler_is_chosen_in_one_word_and_hears_the_epoch() -> None:
    data = prepared("data/source=debug", "data/sampler=progressive", "trainer.max_epochs=4")
    first, last = (data.epoch(epoch)[1].bincount().tolist() for epoch in (0, 3))
    assert sum(first) == sum(last) == sum(data.class_counts)
    assert max(first[:5]) < min(first[5:])
    assert sum(last[:5]) > 2 * sum(first[:5])


def test_an_epoch_has_as_many_images_as_are_asked_for() -> None:
    data = prepared("data/source=debug", "data/sampler=balanced", "data.sampler.images=77")
    assert len(data.epoch(0)[1]) == 77
