"""What is measured on, its clock and its memory."""

import resource
import time

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronized() -> float:
    """Give the time in seconds after all that was asked of the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_mebibytes() -> float:
    """Give this process's peak memory; on a GPU, that of its tensors there."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
