import torch

from mnist_imbalance.data.seeds import generator


def test_the_same_seeds_give_the_same_stream() -> None:
    draws = [torch.rand(3, generator=generator("test", 1, 2)) for _ in range(2)]
    assert torch.equal(*draws)


def test_other_purposes_and_seeds_give_other_streams() -> None:
    keys: list[tuple[str, tuple[int, ...]]] = [
        ("a", ()),
        ("a", (0,)),
        ("a", (0, 0)),
        ("a", (0, 1)),
        ("a", (1, 0)),
        ("b", (0,)),
    ]
    draws = {torch.rand(1, generator=generator(name, *seeds)).item() for name, seeds in keys}
    assert len(draws) == len(keys)
