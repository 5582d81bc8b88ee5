"""How a run was made, and its model card, from the files of its workdir."""

import pathlib
from collections.abc import Mapping
from typing import Any

from csdnet_jax.data import cache
from csdnet_jax.evaluation import comparison
from csdnet_jax.models.weights import published
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.errors import counted
from csdnet_jax.runtime.terminal import duration

_PACKAGES = ('csdnet_jax', 'jax', 'flax', 'numpy')


def folders(config, workdir: paths.Path) -> tuple[str, ...]:
  """Returns the folders of this machine that a page of a run must not tell."""
  known = [
    workdir, cache.cache_dir(config.data.cache), pathlib.Path.home()
  ]  # fmt: skip
  if config.data.root:
    known.append(paths.of(config.data.root))
  either = [f(path) for path in known for f in (paths.absolute, paths.resolve)]
  # The root itself is in every path.
  return tuple(dict.fromkeys(str(path) for path in either if path.name))


def made(
  config, workdir: paths.Path, steps: int,
  verdict: Mapping[str, str] | None = None,
) -> dict[str, str]:  # fmt: skip
  """Returns {what: how} of a run.

  Args:
    config: of the run.
    workdir: with `environment.json` and, of newer runs, `weights.json`.
    steps: that it has taken.
    verdict: of a final model, rows on how it was chosen.
  """
  method = config.method.name
  if method == 'frozen':
    method += f', {comparison.TITLES[config.method.frozen.head]}'
  record = writers.read_json(workdir / 'environment.json') or {}
  starts = record.get('starts', [])
  rows = {
    'network': f'{config.model.name}, {config.model.size} × '
    f'{config.model.size} pixels',
    'method': method,
    'weights before training': weights(config, workdir)[0],
    'training': f'{steps} steps of {config.batch_size} pictures'
    if steps
    else 'none; the last layer was fitted to the network as it is',
    'seed': f'{config.seed}; of the split {config.data.split_seed}',
  }
  rows |= verdict or {}
  if starts:
    last = starts[-1]
    packages, code = last.get('packages', {}), last.get('code', {})
    seconds = sum(start.get('seconds', 0.0) for start in starts)
    begun = f'{starts[0]["started"]}, {duration(seconds)}'
    if len(starts) > 1:
      begun += f' in {len(starts)} starts'
    rows |= {
      'final training' if verdict else 'begun, and time taken': begun,
      'device': f'{last["devices"]} ({last["platform"]})',
      'versions': ', '.join(
        [f'Python {last["python"]}']
        + [f'{name} {packages[name]}' for name in _PACKAGES if name in packages]
      ),
      'code': ', '.join(f'{name} {at}' for name, at in code.items())
      or 'not known',
    }
  return rows


def weights(config, workdir: paths.Path) -> tuple[str, str]:
  """Returns where the first weights are from, and their licence."""
  kept = writers.read_json(workdir / 'weights.json') or {}
  origin = kept.get('origin', {'source': config.init_from or 'random'})
  source = origin['source']
  if source == 'random':
    return 'random values', 'none are built on'
  file = origin.get('path', source).replace('\\', '/').rpartition('/')[2]
  known = None
  if source in published.WORDS:
    known = published.find(config.model.name)
  text = origin.get('repository') or (known.repository if known else file)
  if known and known.data:
    text += f', trained on {known.data}'
  for name in ('revision', 'sha256'):
    if name in origin:
      text += f', {name} {origin[name][:12]}'
  licence = origin.get('licence') or (known.licence if known else '')
  return text, licence or 'not known; see where they come from'


def card(
  config,
  workdir: paths.Path,
  data: Mapping[str, Any],
  *,
  refuses: bool,
) -> dict[str, str]:
  """Returns {heading: sentences} of a model card (Mitchell et al., 2019).

  Args:
    config: of the run.
    workdir: of it.
    data: the figures of `data_report.json`.
    refuses: whether it can say that a leaf is of none of its classes.
  """
  classes = counted(data['classes'], 'classes')
  train = data['parts']['train']
  origin, licence = weights(config, workdir)
  other = (
    'A leaf of none of these classes is refused only as often as the page says.'
    if refuses
    else 'A leaf of none of these classes is given one of their names all the '
    'same.'
  )
  return {
    'intended use': f'Suggests which of {classes} a picture shows, one leaf to '
    'a picture, taken as those were that it has learnt from. A suggestion for '
    'a person who can check it, not a determination.',
    'trained on': f'{counted(train["images"], "pictures")} of {classes} of '
    f'{data["name"]}; before that, {origin}.',
    'limits': f'{other} The figures hold for pictures of the same collection: '
    'another camera, place, season, age or illness of the leaf can lower them, '
    'and nothing here measures by how much.',
    'pictures': 'This page holds small copies of pictures of the data set; '
    'pass it on only to whom you may show them.',
    'licence of the weights it began with': licence,
  }
