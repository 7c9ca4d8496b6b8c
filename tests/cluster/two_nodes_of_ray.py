"""Run two nodes of Ray on this machine, of one CPU each.

It prints HOST:PORT of their cluster, its folder of logs, and the process whose children do the
tasks of the second node. A line of input kills that node, the end of input both.
"""

import os
import sys

from ray.cluster_utils import Cluster

cluster = Cluster()
first, second = (cluster.add_node(num_cpus=1) for _ in range(2))
[raylet] = second.all_processes["raylet"]
logs = f"{first.get_session_dir_path()}/logs"
print(cluster.address, logs, raylet.process.pid, flush=True)
if sys.stdin.readline():
    cluster.remove_node(second, allow_graceful=False)
    sys.stdin.read()
cluster.shutdown()
os._exit(0)  # as `commandline.leaving_ray` does
