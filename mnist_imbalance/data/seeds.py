"""Random number generators that depend on nothing but their seeds."""

import hashlib
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

if TYPE_CHECKING:
    import torch

Seed = Annotated[int, Field(ge=0, lt=2**32)]


def derive(purpose: str, *seeds: int) -> int:
    """Derive a seed of 64 bits; another purpose or another seed gives an unrelated one."""
    digest = hashlib.sha256(repr((purpose, *seeds)).encode()).digest()
    return int.from_bytes(digest[:8])


def generator(purpose: str, *seeds: int) -> "torch.Generator":
    """Return a CPU generator from a derived seed."""
    import torch  # here, for --help and plans need seeds but no torch

    return torch.Generator().manual_seed(derive(purpose, *seeds))
