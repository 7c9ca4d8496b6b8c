"""Run two nodes of Ray on this machine, of one CPU each.

It prints HOST:PORT of their cluster and its folder of logs. A line of input kills the second node,
the end of input both.
"""

import sys

from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
print(cluster.address, f"{cluster.head_node.get_session_dir_path()}/logs", flush=True)
if sys.stdin.readline():
    cluster.remove_node(second, allow_graceful=False)
    sys.stdin.read()
cluster.shutdown()
