"""Profiles, against the counts of their papers."""

import pytest
from test_data import prepared

from mnist_imbalance.data.imbalance import exactly, exponential, shot_groups, zipf
from mnist_imbalance.errors import ConfigError


@pytest.mark.parametrize(("ratio", "total"), [(100, 12_406), (50, 13_996), (10, 20_431)])
def test_the_long_tails_of_cifar_10(ratio: float, total: int) -> None:
    assert sum(exponential([5000] * 10, ratio)) == total  # Cao et al., 2019


def test_a_profile_lies_on_the_rarest_label() -> None:
    assert exponential([500, 300, 400], 100) == [300, 30, 3]
    counts = zipf([5000] * 10, 100)
    assert (counts[0], counts[1], counts[-1]) == (5000, 1250, 50)
    assert counts == sorted(counts, reverse=True)


def test_explicit_counts() -> None:
    assert exactly([10, 10], [3, 7]) == [3, 7]
    counts = list(range(10, 20))
    data = prepared("data/source=debug", "data/profile=counts", f"data.keep.counts={counts}")
    assert data.class_counts == counts
    with pytest.raises(ConfigError, match=r"^data\.keep: label 9 has 80 images, not 81$"):
        prepared(
            "data/source=debug", "data/profile=counts", f"data.keep.counts={[*counts[:9], 81]}"
        )


def test_groups_of_a_long_tail() -> None:
    assert shot_groups([300, 100, 5], 20, 100) == {
        **{"few": [2], "medium": [1], "many": [0]},
        "all": [0, 1, 2],
    }
    assert shot_groups([300, 200], 20, 100) == {"many": [0, 1], "all": [0, 1]}
    with pytest.raises(ConfigError, match=r"^data\.shots: 30 must not be above 20$"):
        shot_groups([10], 30, 20)


def test_a_seed_chooses_the_minority() -> None:
    def chosen(seed: int) -> list[int]:
        data = prepared("data/source=debug", "data.minority=3", f"data.seed={seed}")
        assert [data.class_counts[label] for label in data.minority] == [8, 8, 8]
        assert len(data.groups) == 3
        return data.minority

    assert chosen(0) == chosen(0)
    assert len({tuple(chosen(seed)) for seed in range(5)}) > 1
    with pytest.raises(ConfigError, match=r"^data\.minority: must be below 10"):
        prepared("data/source=debug", "data.minority=10")
