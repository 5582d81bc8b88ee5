"""A Ray cluster of two workers on this computer, until stdin is closed."""

import sys


def main() -> None:
  """Starts it, prints its address, and waits."""
  # Here, since the fast tier collects this file and has no Ray.
  from ray.cluster_utils import Cluster

  store = {'num_cpus': 1, 'object_store_memory': 80 * 2**20}
  cluster = Cluster(initialize_head=True, head_node_args=store)
  cluster.add_node(**store)
  cluster.wait_for_nodes()
  print(f'address {cluster.address}', flush=True)
  sys.stdin.read()
  cluster.shutdown()


if __name__ == '__main__':
  main()
