"""Which rows of the data are read, by which host and in which order."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grain
import numpy as np

from csdnet_jax.runtime.errors import UserError


def shuffled(
  take: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
  n: int,
  *,
  batch: int,
  seed: int,
  start: int,
  stop: int,
  order: np.ndarray | None = None,
  host: int = 0,
  hosts: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """The training batches of steps `start` to `stop` - 1.

  A batch depends on the seed and its step alone: rows are shuffled anew in
  every epoch, the epochs joined end to end and cut into batches, so that a run
  resumed at any step, on any number of hosts, sees what an unbroken one saw.

  Args:
    take: `(places [b], ids [b]) -> batch`, the rows' places in the endless
      order of a run, all different, and which of the n rows they are.
    n: rows of the data.
    batch: B, rows of a batch over all the hosts; at most n.
    seed: of the shuffles.
    start: the first step.
    stop: the step after the last.
    order: [B], the order of a batch's rows, where it is not theirs.
    host: takes rows host * b to (host + 1) * b of each batch, b = B / hosts.
    hosts: how many there are.

  Yields:
    What `take` makes of each batch's rows.

  Raises:
    UserError: B exceeds n or is no multiple of `hosts`.
  """
  if batch > n:
    raise UserError(
      f'The batch of {batch} is larger than the training set of {n} images; '
      'lower the batch size'
    )
  order = np.arange(batch) if order is None else order
  rows = order[host_rows(batch, host, hosts)]

  def of_step(i, ids):
    return take((start + i) * batch + rows, np.asarray(ids)[rows])

  steps = _batches(n, batch, seed).slice(slice(start, stop))
  steps = steps.map_with_index(of_step)
  # Threads, not processes: nearly all that is left to do is copying memory.
  return iter(
    steps.to_iter_dataset(
      grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    )
  )


def order(n: int, *, batch: int, seed: int, steps: int) -> np.ndarray:
  """Returns which of the n rows `shuffled` reads: int32 [steps, B]."""
  rows = _batches(n, batch, seed)
  return np.array([rows[i] for i in range(steps)], np.int32)


def _batches(n: int, batch: int, seed: int) -> grain.MapDataset:
  """Rows for endless steps: epochs joined end to end, cut into batches."""
  return (
    grain.MapDataset.range(n)
    .seed(seed % 2**32)
    .shuffle()
    .repeat()
    # Of an endless order none remains, but Grain counts it and overflows at 1.
    .batch(batch, drop_remainder=True)
  )


def host_rows(batch: int, host: int, hosts: int) -> slice:
  """Which rows of a batch a host takes.

  Raises:
    UserError: the batch is no multiple of `hosts`.
  """
  if batch % hosts:
    raise UserError(
      f'The batch of {batch} cannot be shared evenly by {hosts} hosts; make it '
      'a multiple'
    )
  rows = batch // hosts
  return slice(host * rows, (host + 1) * rows)


def one_behind(items: Iterable[Any]) -> Iterator[Any]:
  """Yields each item once the next is made, or begun on another device.

  >>> made = (print('made', i) or i for i in range(2))
  >>> for item in one_behind(made):
  ...   print('used', item)
  made 0
  made 1
  used 0
  used 1
  """
  for item, _ in itertools.pairwise(itertools.chain(items, [None])):
    yield item


def spread(n: int, most: int) -> np.ndarray:
  """At most so many of n rows, spread evenly: int64, sorted.

  >>> spread(5, 3), spread(3, 9), spread(3, 0).size
  (array([0, 2, 4]), array([0, 1, 2]), 0)
  """
  return np.linspace(0, n - 1, min(most, n)).astype(np.int64)
