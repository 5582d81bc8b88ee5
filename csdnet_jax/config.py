"""The fields of a run, their defaults, and the checks before any device work.

A config file under `configs/` calls `default()` and changes what its setting
needs; the command line changes single fields with `--config.key=value`. Each
method, network and data source brings its own fields: here are the run's.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections

from csdnet_jax import methods, models, optim
from csdnet_jax.data import sources
from csdnet_jax.models.weights import published
from csdnet_jax.runtime import plugins
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import (
  Field,
  Fields,
  check,
  defaults,
  flat,
  nearest,
)

# A run may be continued although these differ: they change no figure. Where the
# images lie is no part of what they are, which the run knows by their digests;
# once it has its parts, what cannot be read is in none of them.
LOGGING_KEYS = (
  'name', 'notice', 'log_every', 'save_every', 'keep', 'wandb', 'data.cache',
  'data.root', 'data.table', 'data.unreadable', 'parallel',
)  # fmt: skip

RUN = {
  'name': Field('run'),  # The default workdir is runs/<name>.
  'notice': Field(''),  # One line said at start.
  # Initial values, order of images, views, masks.
  'seed': Field(0, low=0, high=2**31 - 1),
  # 'pretrained' (see `csdnet models`), a workdir, a file, or '' for random.
  'init_from': Field('pretrained'),
  'init_allow': Field(''),  # Regex of weights missing or unexpected.
  # 'probe': a linear probe of the initial features, fitted to the training
  # images (LP-FT: Kumar et al., Fine-Tuning can Distort Pretrained Features and
  # Underperform Out-of-Distribution, ICLR 2022, section 3.4).
  'init_head': Field('loaded', choices=('loaded', 'probe')),
  # Images a step over all devices; each gives its views.
  'batch_size': Field(16, low=1),
  # Micro-batches a step; each contrasts its own rows.
  'accumulate': Field(1, low=1),
  # Over devices; 'pmap' gives the same, bit for bit.
  'parallel': Field('shard_map', choices=('shard_map', 'pmap')),
  'epochs': Field(30.0, low=1e-6),
  'log_every': Field(10, low=1),  # Steps.
  # Epochs; the last one is always evaluated.
  'eval_every': Field(5.0, low=0.01),
  'save_every': Field(200, low=1),  # Steps; an evaluation is saved as well.
  'keep': Field(2, low=1),  # The latest checkpoints, beside the best.
  # Decay of the averaged weights; 0 is off.
  'ema': Field(0.0, low=0, high=0.999999),
  'data': {
    # 'folder', 'ufg' (the release), 'tfds' (a prepared set), 'leaves' (drawn)
    # or a module of yours; of images and masks 'cityscapes', 'ade20k',
    # 'context59', 'context60', 'camvid' or 'pairs' (a folder of yours).
    'source': Field('folder'),
    'root': Field(''),  # The folder; for 'ufg' and 'tfds' the TFDS data_dir.
    'name': Field(''),  # The UFG set, such as 'soy_ageing/R1', or that of TFDS.
    # Where the program must split; 0 trains on everything and tests nothing.
    'test_fraction': Field(0.5, low=0, high=0.99),
    # Carved from train; then it selects the best epoch.
    'val_fraction': Field(0.0, low=0, high=0.99),
    'shots': Field(0),  # Keep that many training images a class; 0: all.
    'split_seed': Field(0),
    # Where the data come with train and test: in classes of equally many on
    # both sides these change places, by the toss of split_seed's coin.
    'resplit': Field(False),
    # What shows one thing, such as one plant, stays on one side of the split:
    # a regex on the path, whose first group (or all of its match) says what;
    # 'stem', what the names of its pictures begin with; or a column of the
    # table.
    'group': Field(''),
    # Of the folder, in place of class folders: a CSV or TSV file with columns
    # path and label, and group and part where there are such.
    'table': Field(''),
    # Pictures that cannot be read: 'stop', or 'skip' them and say which.
    'unreadable': Field('stop', choices=('stop', 'skip')),
    'strict': Field(False),  # Stop where the data report only warns.
    # 'keep', or 'square': squeeze the whole image.
    'aspect': Field('keep', choices=('keep', 'square')),
    # Pixels; the training images are kept at this size. 0: what model.size
    # needs.
    'canvas': Field(0, low=0, high=4096),
    # Short side before the centre crop, aspect 'keep'. 0: as model.size wants.
    'test_resize': Field(0, low=0),
    # Of segmentation: shrink the shorter side of training pairs to it; 0: off.
    'resize': Field(0, low=0),
    'cache': Field(''),  # Decoded images; '' is ~/.cache/csdnet_jax.
  },
  'model': {
    'name': Field('efficientnet_lite0'),
    # Pixels a side, at training and at test.
    'size': Field(160, low=8, high=2048),
    # Channels before the head of a segmentation network; 0: its own.
    'width': Field(0, low=0),
    'drop_rate': Field(0.2, low=0, high=0.99),  # Dropout before the head.
    'drop_path': Field(0.0, low=0, high=0.99),
    # BatchNorm normalises by the averages that it was loaded with, in training
    # too: those of small batches of few images would replace them.
    'freeze_bn': Field(False),
    # Recompute blocks in the backward pass: less memory.
    'remat': Field(False),
    # Of products and activations, not of weights.
    'dtype': Field('float32', choices=('float32', 'bfloat16')),
  },
  'views': {
    'area': Field((0.67, 1.0), low=1e-3, high=1),  # Share that a crop covers.
    'ratio': Field((0.75, 4 / 3), low=0.1, high=10),  # Width over height.
    'flip': Field(True),
    # Degrees to either side; 180 is a full turn.
    'rotate': Field(15.0, low=0, high=180),
    'brightness': Field(0.3, low=0, high=1),
    'contrast': Field(0.0, low=0, high=1),
    'saturation': Field(0.0, low=0, high=1),
  },
  'crops': {  # Random ones of an image and its mask.
    'scale': Field((0.5, 2.0), low=0.1, high=10),
    # Degrees to either side, for every second one.
    'rotate': Field(10.0, low=0, high=180),
    'blur': Field(0.5, low=0, high=1),  # The probability.
    'flip': Field(True),
  },
  # Of segmentation: windows of model.size, each with its mirror image.
  'evaluation': {
    'scales': Field((1.0,)),
    'flip': Field(True),
    # Pixels of the long side at scale 1; 0: the image's own.
    'base_size': Field(0, low=0),
    # At most so many before the last evaluation; 0: all.
    'images': Field(0, low=0),
  },
  'optim': optim.FIELDS,
  'method': {
    # or 'supervised', 'supcon', 'frozen' (a head on the network as it is), a
    # module of yours; of segmentation 'apd'.
    'name': Field('csdnet'),
  },
  # Who is learnt from: a run of ours or a file of weights, never trained.
  'teacher': {
    'run': Field(''),  # Its workdir, which says the next two.
    'weights': Field(''),  # or a file.
    'model': Field(''),  # The name of its network.
    'width': Field(0, low=0),  # As model.width.
    'dtype': Field('bfloat16', choices=('float32', 'bfloat16')),
  },
  'wandb': {'project': Field('')},
}


class _Named(NamedTuple):
  """What a field of the config names, with fields of its own beside it."""

  part: str
  key: str
  builtin: Mapping[str, Any]
  find: Callable[[str], Any]

  def of(self, config: Mapping) -> str:
    return config[self.part][self.key]

  @property
  def field(self) -> str:
    return f'{self.part}.{self.key}'


NAMED = {
  'method': _Named('method', 'name', methods.METHODS, methods.find),
  'source': _Named('data', 'source', sources.SOURCES, sources.find),
  'network': _Named('model', 'name', models.KNOWN, models.find),
}


def fields(method: str, source: str, network: str) -> Fields:
  """Returns every field of a run: ours, and those of what is named.

  Args:
    method: as `config.method.name`.
    source: as `config.data.source`.
    network: as `config.model.name`.

  Raises:
    UserError: for a name that is none of ours and no module.
  """
  found = dict(RUN)
  for named, name in zip(
    NAMED.values(), (method, source, network), strict=True
  ):
    part, builtin = named.part, named.builtin
    brought = {key: spec.fields for key, spec in builtin.items() if spec.fields}
    if name not in builtin:
      key, theirs = plugins.section(name), named.find(name).fields
      if theirs and (key in RUN[part] or key in builtin):
        raise UserError(
          f'The fields of {name} would lie at config.{part}.{key}, which is '
          'taken; give the module another name.'
        )
      brought |= {key: theirs} if theirs else {}
    found[part] = RUN[part] | brought
  return found


def default(
  method: str = 'csdnet',
  source: str = 'folder',
  network: str = 'efficientnet_lite0',
) -> ml_collections.ConfigDict:
  """Returns every field with its default.

  Args:
    method: what is trained: a name of `methods.METHODS`, or the name of a
      module that defines a `MethodSpec`, whose fields come with it.
    source: of the images: likewise, a `SourceSpec`.
    network: likewise, a `ModelSpec`.

  Raises:
    UserError: for a name that is none of ours and no module.
  """
  config = ml_collections.ConfigDict(defaults(fields(method, source, network)))
  config.method.name, config.data.source = method, source
  config.model.name = network
  return config


def rename(config: ml_collections.ConfigDict, **names: str):
  """Names another method, source or network, into a new config.

  The fields of a module come with its name and go with it.

  Args:
    config: whatever it named before.
    names: of `default`.

  Raises:
    UserError: for a name that is none of ours and no module.
  """
  config = config.copy_and_resolve_references()
  for word, name in names.items():
    named = NAMED[word]
    part, before = config[named.part], named.of(config)
    section = plugins.section(before)
    if before not in named.builtin and before != name and section in part:
      del part[section]
    part[named.key] = name
  whole = defaults(fields(*(named.of(config) for named in NAMED.values())))
  for named in NAMED.values():
    for key, value in whole[named.part].items():
      if key not in config[named.part]:
        config[named.part][key] = ml_collections.ConfigDict(value)
  return config


def outside(config: Mapping) -> dict[str, str]:
  """Returns {field: module} of what a nested config names outside of us."""
  found = {
    f'config.{named.field}': named.of(config)
    for named in NAMED.values()
    if named.of(config) not in named.builtin
  }
  teacher = config.get('teacher', {}).get('model')
  if teacher and teacher not in models.KNOWN:
    found['config.teacher.model'] = teacher
  return found


def to_json(config: ml_collections.ConfigDict) -> str:
  """Returns the resolved config as JSON with sorted keys."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def from_json(text: str) -> ml_collections.ConfigDict:
  """Reads what `to_json` wrote; newer fields take their defaults.

  Raises:
    UserError: if it names a module that is not installed here.
  """

  def tuples(value):
    if isinstance(value, list):
      return tuple(tuples(v) for v in value)
    if isinstance(value, dict):
      return {k: tuples(v) for k, v in value.items()}
    return value

  # Lists are tuples again.
  given = tuples(json.loads(text))
  names = {
    word: named.of(given)
    for word, named in NAMED.items()
    if named.key in given.get(named.part, {})
  }
  config = default(**names)
  config.update(given)
  return config


def from_flat(fields: dict) -> ml_collections.ConfigDict:
  """Reads {'a.b': value} of plain values; absent fields take their defaults."""
  nested = {}
  for key, value in fields.items():
    *path, last = key.split('.')
    part = nested
    for name in path:
      part = part.setdefault(name, {})
    part[last] = value
  return from_json(json.dumps(nested))


def differences(old, new) -> list[str]:
  """Returns 'key: old -> new' for every key but the logging ones."""
  # As a workdir keeps them: JSON has no tuples.
  old, new = (json.loads(json.dumps(flat(c.to_dict()))) for c in (old, new))
  for c in (old, new):
    c['init_from'] = published.modern(c['init_from'], c['model.name'])
  keys = sorted(
    key
    for key in old.keys() | new.keys()
    if old.get(key) != new.get(key)
    and not any(key == k or key.startswith(k + '.') for k in LOGGING_KEYS)
  )
  return [f'{k}: {old.get(k)!r} -> {new.get(k)!r}' for k in keys]


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks every field, before any device work.

  Raises:
    UserError: for a field that is unknown, missing or out of its range, and as
      the method's own `check`.
  """
  allowed = fields(*(named.of(config) for named in NAMED.values()))
  given, known = flat(config.to_dict()), flat(allowed)
  for key in given.keys() - known.keys():
    raise UserError(f'The config has no field {key!r}.{nearest(key, known)}')
  for key in known.keys() - given.keys():
    raise UserError(
      f'The config lacks the field {key!r}; start from default() of '
      'csdnet_jax.config, which is told the names of modules of yours.'
    )
  check(allowed, given)
  scales = config.evaluation.scales
  if not scales or not all(0.1 <= scale <= 10 for scale in scales):
    raise UserError(
      f'config.evaluation.scales is {scales!r}, but must be one number or more '
      'between 0.1 and 10, such as (1.0,).'
    )
  for row in config.optim.groups:
    try:
      pattern, lr, decayed = row
      re.compile(pattern)
      valid = float(lr) >= 0 and decayed in (True, False)
    except (re.error, TypeError, ValueError):
      valid = False
    if not valid:
      raise UserError(
        f'config.optim.groups has the row {row!r}, but a row is (regex of '
        'names, lr multiplier, whether weight decay applies).'
      )
  if config.model.freeze_bn and not config.init_from:
    raise UserError(
      'config.model.freeze_bn keeps the averages of loaded weights, but '
      'config.init_from is empty; leave freeze_bn False, or load weights.'
    )
  spec = methods.find(config.method.name)
  if spec.task == 'classification':
    _require_room(config)
  spec.check(config)


def _require_room(config) -> None:
  """Refuses canvases and test images that are smaller than the view."""
  for key, why in (
    ('canvas', 'training views would be enlarged'),
    ('test_resize', 'the centre crop is cut from it'),
  ):
    side = config.data[key]
    cut = key == 'canvas' or config.data.aspect == 'keep'
    if cut and 0 < side < config.model.size:
      raise UserError(
        f'config.data.{key} is {side}, but must be at least config.model.size '
        f'({config.model.size}): {why}; or 0, to follow it.'
      )
