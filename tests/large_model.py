"""A model of which the memory holds only a few copies at a time."""

import copy
from typing import Any, ClassVar
from weakref import WeakSet

import torch
from torch import nn

ROOM_FOR = 6


class Large(nn.Sequential):
    copies: ClassVar[WeakSet["Large"]] = WeakSet()

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 10))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Large":
        if len(self.copies) == ROOM_FOR:
            raise torch.OutOfMemoryError
        copied = type(self)()
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        self.copies.add(copied)
        return copied
