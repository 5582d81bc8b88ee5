"""The table of docs/networks.md, and the costs of networks that stand in it.

python -m experiments.report.networks

measures what is not in csdnet_jax/models/costs.csv yet and writes both; a
network that has changed is measured anew once its line is removed.
"""

import csv
import io
import pathlib
import sys

import jax
import jax.numpy as jnp

from csdnet_jax import models
from csdnet_jax.models import listing
from csdnet_jax.models.weights import published
from csdnet_jax.runtime.errors import UserError
from experiments import marks

ROOT = pathlib.Path(__file__).parents[2]
PLACE = ROOT / 'docs' / 'networks.md'
NAME = 'networks'  # Of the marks.
COSTS = ROOT / 'csdnet_jax' / 'models' / 'costs.csv'
# Pixels a side where no published weights say: PSPNet's crops, and the usual.
_CROP, _USUAL = 473, 224


def measure(name: str) -> listing.Cost:
  """Returns what a network costs at its `Cost.size`; compiles nothing.

  Args:
    name: as `models.find` takes it.

  Raises:
    UserError: as `models.find` does.
  """
  weights = published.find(name)
  size = weights.size if weights else _USUAL
  size = _CROP if models.segments(name) else size
  model = models.build(name, classes=1, drop_rate=0.0, drop_path=0.0)
  params, state = jax.eval_shape(lambda: model.init(jax.random.key(0), size))
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)

  def forward(params, state, image):
    return model.apply(params, state, image, train=False)[0].logits

  lowered = jax.jit(forward).lower(params, state, image)
  count = sum(
    leaf.size
    for part, tree in params.items() if part not in ('head', 'aux_head')
    for leaf in jax.tree.leaves(tree)
  )  # fmt: skip
  return listing.Cost(
    size, count, round(lowered.cost_analysis()['flops'] / 1e9, 2)
  )


def table() -> str:
  """Returns the table of docs/networks.md."""
  lines = [
    '| `config.model.name` | px | parameters, M | GFLOPs | weights '
    '| trained on | licence |',
    '|---|---|---|---|---|---|---|',
  ]
  for name, cost in listing.costs().items():
    weights = published.find(name)
    about = ' |  | '
    if weights:
      link = f'[{weights.repository}]({weights.page})'
      licence = weights.licence or f'[its page]({weights.page})'
      licence = f'[{licence}]({weights.terms})' if weights.terms else licence
      about = f'{link} | {weights.data} | {licence}'
    lines.append(
      f'| `{name}` | {cost.size} | {cost.parameters / 1e6:.1f} | '
      f'{cost.gflops:.1f} | {about} |'
    )
  return '\n'.join(lines) + '\n'


def main() -> None:
  """Writes the costs that are not kept yet, and the table.

  Raises:
    UserError: if docs/networks.md is absent or has no marks.
  """
  kept = listing.costs() if COSTS.exists() else {}
  stream = io.StringIO()
  writer = csv.writer(stream, lineterminator='\n')
  writer.writerow(('name', *listing.Cost._fields))
  for name in models.MODELS:
    writer.writerow((name, *(kept.get(name) or measure(name))))
  COSTS.write_text(stream.getvalue(), encoding='utf-8')
  listing.costs.cache_clear()
  marks.fill(PLACE, NAME, table())


if __name__ == '__main__':
  try:
    main()
  except UserError as error:
    sys.exit(f'error: {error}')
