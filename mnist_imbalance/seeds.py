"""Random number generators that depend on nothing but their seeds."""

import hashlib
from typing import Annotated

import torch
from pydantic import Field

Seed = Annotated[int, Field(ge=0, lt=2**32)]


def generator(purpose: str, *seeds: int) -> torch.Generator:
    """Make a CPU generator; another purpose or another seed gives an independent stream."""
    digest = hashlib.sha256(repr((purpose, *seeds)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]))
