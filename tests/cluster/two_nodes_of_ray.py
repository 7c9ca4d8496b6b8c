"""Run two nodes of Ray on this machine, of one CPU each.

It prints HOST:PORT of their cluster and its folder of logs. A line of input kills the second node,
the end of input both.
"""

import os
import sys

from ray.cluster_utils import Cluster

cluster = Cluster()
first, second = (cluster.add_node(num_cpus=1) for _ in range(2))
logs = f"{first.get_session_dir_path()}/logs"
print(cluster.address, logs, flush=True)
if sys.stdin.readline():
    cluster.remove_node(second, allow_graceful=False)
    sys.stdin.read()
cluster.shutdown()
os._exit(0)  # Ray's threads may crash an orderly end
