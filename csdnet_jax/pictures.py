"""Pictures for the workdir: what the method makes of a few leaves."""

import jax
import numpy as np

from csdnet_jax import paths
from csdnet_jax.state import averaged

_ROWS = 6


def write_views(method, state, data, workdir: paths.Path, *, step: int):
  """Writes `views_<step>.png`: the method's pictures of six test leaves.

  Args:
    method: gives the pictures; one without any writes nothing.
    state: the train state.
    data: with `views['test']` and the data set.
    workdir: gets the file, on the first process.
    step: named in the file and its title.

  Returns:
    The path, or None.
  """
  if jax.process_index():
    return None
  test, dataset = data.views['test'], data.dataset
  rows = np.unique(np.linspace(0, len(test.labels) - 1, _ROWS).astype(int))
  batch = {
    'image': np.asarray(test.images[rows]),
    'label': np.asarray(test.labels[rows]),
  }
  # On this host's own copy, so that no other process is needed.
  params, model_state = jax.tree.map(
    lambda x: x.addressable_data(0), averaged(state)
  )
  headings = []

  def draw(*args):
    columns = method.pictures(*args)
    headings.extend(columns)  # While traced: jit would sort a dict's keys.
    return list(columns.values())

  images = jax.jit(draw)(params, model_state, batch, jax.random.key(0))
  if not headings:
    return None
  columns = dict(zip(headings, jax.device_get(images), strict=True))
  names = [dataset.class_names[label] for label in batch['label']]
  path = workdir / f'views_{step:06d}.png'
  contact_sheet(path, columns, names, title=f'{dataset.name}, step {step}')
  return path


def contact_sheet(
  path: paths.Path, columns: dict, names, *, title: str
) -> None:
  """Writes a grid of images: a column for each kind, a row for each leaf.

  Args:
    path: of the PNG.
    columns: {heading: [n, H, W, 3] in [0, 1]}.
    names: n names for the rows.
    title: over all.
  """
  from matplotlib.figure import Figure

  n = len(names)
  figure = Figure(
    figsize=(1.7 * len(columns) + 0.9, 1.7 * n + 0.6), layout='constrained'
  )
  axes = figure.subplots(n, len(columns), squeeze=False)
  for j, (heading, images) in enumerate(columns.items()):
    for i in range(n):
      axis = axes[i, j]
      axis.imshow(np.clip(images[i], 0.0, 1.0))
      axis.set_xticks([])
      axis.set_yticks([])
      if i == 0:
        axis.set_title(heading, fontsize=9, parse_math=False)
      if j == 0:
        axis.set_ylabel(names[i], fontsize=7, parse_math=False)
  # A class called '$5' is no formula.
  figure.suptitle(title, fontsize=10, parse_math=False)
  with path.open('wb') as file:
    figure.savefig(file, format='png', dpi=110)
