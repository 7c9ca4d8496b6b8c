"""Random number generators that depend on nothing but their seeds."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field

Seed = Annotated[int, Field(ge=0, lt=2**32)]


def generator(*seeds: int) -> torch.Generator:
    """Make a CPU generator from one or more seeds; other seeds, an independent stream."""
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
