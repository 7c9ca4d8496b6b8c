"""What holds for a process that another one has started."""

import multiprocessing
import os
import threading
import time
from functools import cache


@cache
def end_with_parent() -> None:
    """Let this process, if it is another's worker, end with that one, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        while os.getppid() == parent.pid:  # joblib's workers have no sentinel to wait for
            time.sleep(0.5)
        os._exit(1)  # what else ends a process from a thread while the main one computes?

    threading.Thread(target=follow, daemon=True).start()
