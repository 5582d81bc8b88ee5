"""`csdnet models`: the networks, what they cost and their published weights."""

import argparse
import csv
import functools
import importlib.resources
import importlib.util
from typing import NamedTuple

import rich.table

from csdnet_jax.models import registry
from csdnet_jax.models.weights import hub, published
from csdnet_jax.runtime.console import console
from csdnet_jax.runtime.terminal import say


class Cost(NamedTuple):
  """What a network costs.

  Attributes:
    size: pixels a side; of the images that its weights were trained on, of
      PSPNet's crops (473) if it segments, else 224.
    parameters: without the head, which depends on the classes.
    gflops: of one image forward, as XLA counts them: a multiplication and an
      addition are two, and what meets a border's padding is none.
  """

  size: int
  parameters: int
  gflops: float


@functools.cache
def costs() -> dict[str, Cost]:
  """Returns {name: Cost} of the networks that any config may name."""
  listed = importlib.resources.files(__package__) / 'costs.csv'
  rows = csv.DictReader(listed.read_text(encoding='utf-8').splitlines())
  return {
    row['name']: Cost(
      int(row['size']), int(row['parameters']), float(row['gflops'])
    )
    for row in rows
  }


def is_here(weights: published.Weights) -> bool:
  """Returns whether published weights can be loaded without the network."""
  if weights.file:
    return hub.is_fetched(weights)
  package = weights.repository.replace('-', '_')
  return importlib.util.find_spec(package) is not None


def main(args: argparse.Namespace) -> None:
  """Prints the table, or all that is known of the network `args.name`."""
  if args.name:
    _show(args.name)
    return
  table = rich.table.Table(box=None, pad_edge=False, collapse_padding=True)
  for head, justify, width in (
    ('network', 'left', 14), ('px', 'right', 3), ('params', 'right', 6),
    ('GFLOPs', 'right', 6), ('trained on', 'left', 12), ('licence', 'left', 14),
    ('here', 'left', 4),
  ):  # fmt: skip
    table.add_column(
      head, justify=justify, min_width=width, overflow='fold',
      no_wrap=head == 'network',
    )  # fmt: skip
  for name, cost in costs().items():
    weights = published.find(name)
    about = ('', '', '')
    if weights is not None:
      here = 'yes' if is_here(weights) else ''
      about = weights.data, weights.licence or 'not said', here
    table.add_row(
      name, str(cost.size), f'{cost.parameters / 1e6:.1f}M',
      f'{cost.gflops:.1f}', *about,
    )  # fmt: skip
  console.print(table)
  say(
    'Parameters are millions, without the head; GFLOPs are of one image '
    'forward at so many px. Weights that are not here are fetched when their '
    'network is first trained: --config.model.name=NAME, after pip install '
    '"csdnet_jax[hub]" for those of the hub. csdnet models NAME says all of '
    'one.'
  )


def _show(name: str) -> None:
  """Prints a network's cost and weights, a line for each fact."""
  registry.find(name)
  rows = {}
  if cost := costs().get(name):
    rows['parameters'] = f'{cost.parameters:,} without the head'
    rows['GFLOPs'] = f'{cost.gflops:.1f} of one image of {cost.size} px forward'
  weights = published.find(name)
  if weights is None:
    rows['weights'] = 'none are known; set config.init_from to a file'
  else:
    pin = hub.pinned(weights)
    rows |= {
      'weights': weights.page,
      'file': weights.file or 'of the package',
      'trained on': f'{weights.data}, {weights.size} px, {weights.resampling}',
      'mean': _colours(weights.mean),
      'deviation': _colours(weights.std),
      'licence': weights.licence or 'not said',
      'terms': weights.terms or weights.page,
      'revision': pin.revision or 'pinned at the first fetch',
      'SHA-256': pin.sha256 or 'pinned at the first fetch',
      'here': 'yes' if is_here(weights) else 'no',
    }
  for key, value in rows.items():
    say(f'{key:10}  {value}')


def _colours(values) -> str:
  return ' '.join(f'{x:.3f}' for x in values)
