"""Devices: one axis, 'data', over which the batch is split.

The step is written per device. Over several devices it runs under
`jit(shard_map)`: gradients are averaged, in-batch keys gathered, through AXIS.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

from csdnet_jax.runtime.errors import UserError

AXIS = 'data'
REPLICATED = P()
ROWS = P(AXIS)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns a mesh of the devices (default: all) along AXIS.

  Process by process, since process h feeds and fetches the h-th part of the
  rows: the order by place on a TPU's torus would interleave them.
  """
  devices = in_order(jax.devices() if devices is None else devices)
  return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def in_order(devices: Sequence[jax.Device]) -> list[jax.Device]:
  """Returns the devices of process 0, then those of process 1, and so on."""
  return sorted(devices, key=lambda d: (d.process_index, d.id))


def axis_of(mesh: Mesh) -> str | None:
  """Returns the name for collectives: None where there is one device."""
  return AXIS if mesh.size > 1 else None


def compile_step(
  step: Callable,
  mesh: Mesh,
  *,
  donate: bool,
  out_specs=REPLICATED,
  parallel: str = 'shard_map',
) -> Callable:
  """Jits `step(state, batch, ...)`, the batch split, the rest replicated.

  Args:
    step: a per-device function of (state, batch, *rest).
    mesh: of one axis.
    donate: whether the state's buffers are reused for the output.
    out_specs: of the outputs: REPLICATED where they are equal on all devices,
      ROWS where each device returns its rows.
    parallel: 'shard_map', or 'pmap' for the same function under `jax.pmap`, in
      one process; the results are equal bit for bit.

  Raises:
    UserError: 'pmap' is asked for in several processes.
  """
  split = {'shard_map': _shard_map, 'pmap': _pmap}[parallel]
  if mesh.size > 1:
    step = split(step, mesh, out_specs)
  return jax.jit(step, donate_argnums=(0,) if donate else ())


def _shard_map(step, mesh, out_specs):
  def mapped(state, batch, *rest):
    in_specs = (REPLICATED, ROWS, *(REPLICATED for _ in rest))
    return jax.shard_map(
      step, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )(state, batch, *rest)

  return mapped


def _pmap(step, mesh, out_specs):
  """The batch and the row outputs get an axis for the devices, and lose it."""
  if mesh.is_multi_process:
    raise UserError(
      "config.parallel='pmap' is for one process; leave it at 'shard_map'."
    )

  def mapped(state, batch, *rest):
    batch = jax.tree.map(
      lambda x: x.reshape(mesh.size, -1, *x.shape[1:]), batch
    )
    outputs = jax.pmap(
      step,
      axis_name=AXIS,
      in_axes=(None, 0, *(None for _ in rest)),
      out_axes=jax.tree.map(lambda s: 0 if s == ROWS else None, out_specs),
      devices=mesh.devices.flat,
    )(state, batch, *rest)
    if out_specs == REPLICATED:
      return outputs
    return tuple(
      jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), output)
      if spec == ROWS else output
      for output, spec in zip(outputs, out_specs, strict=True)
    )  # fmt: skip

  return mapped


def replicate(tree, mesh: Mesh):
  """Puts equal host values on all devices, of all processes, as own copies."""
  sharding = NamedSharding(mesh, REPLICATED)

  def put(x):
    if mesh.is_multi_process:
      return jax.make_array_from_process_local_data(sharding, np.asarray(x))
    # A copy: the state is donated, and its source may be used again, even
    # within it (the EMA starts as the parameters).
    return jax.device_put(jax.numpy.array(x, copy=True), sharding)

  return jax.tree.map(put, tree)


def shard_batch(batch, mesh: Mesh):
  """Makes the global batch from this process's rows of it."""
  sharding = NamedSharding(mesh, ROWS)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), batch
  )


def fetch_rows(x: jax.Array) -> np.ndarray:
  """Returns a row-sharded array on every host."""
  if x.is_fully_addressable:
    return np.asarray(x)
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(x, tiled=True)


def abstract(tree, mesh: Mesh):
  """Returns the tree's shapes and dtypes with a replicated sharding."""
  sharding = NamedSharding(mesh, REPLICATED)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )


def row_keys(key: jax.Array, rows: int, axis: str | None) -> jax.Array:
  """Returns [rows] keys, fold_in(key, global row): equal on any topology."""
  first = 0 if axis is None else jax.lax.axis_index(axis) * rows
  return jax.vmap(lambda row: jax.random.fold_in(key, row))(
    first + jax.numpy.arange(rows)
  )


def row_order(batch: int, devices: int, accumulate: int) -> np.ndarray:
  """Returns [batch] global rows in the order in which devices hold them.

  A step of n micro-batches cuts each device's rows into n blocks, and
  micro-batch i is block i of every device. In this order it holds the global
  rows i * batch / n to (i + 1) * batch / n - 1, on any number of devices.
  """
  rows = np.arange(batch).reshape(accumulate, devices, -1)
  return rows.transpose(1, 0, 2).reshape(-1)


def gather(x: jax.Array, axis: str | None) -> jax.Array:
  """[b, ...] on each device -> [B, ...] of all devices, in global row order."""
  return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def mean(tree, axis: str | None):
  """The mean over devices."""
  return tree if axis is None else jax.lax.pmean(tree, axis)


def total(x: jax.Array, axis: str | None) -> jax.Array:
  """The sum of x over its entries and over devices, [] float32."""
  x = jax.numpy.sum(x, dtype=jax.numpy.float32)
  return x if axis is None else jax.lax.psum(x, axis)


def abstract_rows(batch, mesh: Mesh):
  """Returns the shapes of a global batch, split by rows."""
  sharding = NamedSharding(mesh, ROWS)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), batch
  )


def barrier(name: str) -> None:
  """Waits until every process is here."""
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)
