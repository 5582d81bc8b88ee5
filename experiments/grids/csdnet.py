"""The questions that CSDNet raises, as grids (see `grid.py`).

The baseline of each is CSDNet, or CSDNet without SSDP, which is what
configs/folder.py trains: what another arm has more or less is said of it.

Equal epochs is how the papers compare; but CSDNet sends two images through the
network for each training image, and plain fine-tuning one. At equal compute an
arm with one view gets twice the epochs and warm-up: in batches twice as large,
equally many steps each with equally many images through the network; in the
same batches, twice as many steps with as many images in all.
"""

import itertools

from csdnet_jax.configs import common
from csdnet_jax.runtime.fields import flat
from experiments.grid import ARM, Grid, chain, field, named, product, zip_

# With SSDP, which configs/folder.py leaves out.
CSDNET = named(
  'CSDNet', {'method.name': 'csdnet', 'method.csdnet.mode': 'spotlight'}
)
NO_SSDP = named('SSDP', {'method.csdnet.mode': 'none'})
NO_DDL = named('DDL', {'method.csdnet.alpha': 0.0})
NO_SSDT = named('SSDT', {'method.csdnet.beta': 0.0})
ONE_VIEW = named(
  'cross-entropy, one view, equal epochs',
  {'method.name': 'supervised', 'method.supervised.views': 1},
)
TWO_VIEWS = named(
  'cross-entropy, two views',
  {'method.name': 'supervised', 'method.supervised.views': 2},
)
SUPCON = named('SupCon', {'method.name': 'supcon'})
# CLE-ViT's loss in this trainer's recipe.
CLEVIT = named(
  'CLE-ViT',
  {'method.name': 'csdnet'}
  | {f'method.csdnet.{key}': value for key, value in common.CLEVIT.items()},
)


def without(*modules):
  """CSDNet without some of its modules."""
  words = ' and '.join(module[ARM] for module in modules)
  (arm,) = product([CSDNET], *([module] for module in modules))
  return named(f'CSDNet without {words}' if words else 'CSDNet', arm)


SHIPPED = without(NO_SSDP)

# What `tuning` chose on a validation part of grape58 and of leaf99's train set,
# as factors of the rate.
RATES = {
  'cross-entropy, one view, equal compute': (1.0, 3.0),
  'cross-entropy, one view, equal compute, twice the steps': (0.3, 1.0),
  'cross-entropy, two views': (1.0, 0.3),
  'CLE-ViT': (0.3, 1.0),
  'SupCon': (0.3, 0.3),
  'CSDNet': (1.0, 1.0),
}

STAGES = ('R1', 'R3', 'R4', 'R5', 'R6')


def _twice_as_long(base):
  return {'epochs': 2 * base.epochs, 'optim.warmup': 2 * base.optim.warmup}


def one_view_twice(base):
  """Cross-entropy on one view, at the compute and steps of two views."""
  larger = {'batch_size': 2 * base.batch_size}
  words = 'cross-entropy, one view, equal compute'
  return named(words, ONE_VIEW | larger | _twice_as_long(base))


def one_view_more_steps(base):
  """Cross-entropy on one view, at the compute and twice the steps."""
  words = 'cross-entropy, one view, equal compute, twice the steps'
  return named(words, ONE_VIEW | _twice_as_long(base))


def components(base):
  """Each module on and off, beside cross-entropy on one view.

  With all three off it is cross-entropy on two views. A budget that ends early
  leaves what is asked first: all, without each, without all.
  """
  arms = []
  for n in (0, 1, 3, 2):
    for off in itertools.combinations((NO_SSDP, NO_DDL, NO_SSDT), n):
      arms.append(without(*off))
  return [*arms, one_view_twice(base)]


def baselines(base):
  """What CSDNet has to beat, at equal compute and at equal epochs.

  The table of docs/evidence.md, and of it three rows in README.md.
  """
  return [SHIPPED, *_at_equal_compute(base), ONE_VIEW]


def _at_equal_compute(base):
  return [
    CSDNET, one_view_twice(base), one_view_more_steps(base), TWO_VIEWS,
    CLEVIT, SUPCON,
  ]  # fmt: skip


def _rates(base, factors):
  return field('optim.lr', [base.optim.lr * factor for factor in factors])


def tuning(base):
  """The same budget for each arm: three rates, judged on a part of train."""
  part = {'data.val_fraction': 0.34}
  rates = _rates(base, (1.0, 0.3, 3.0))
  return product([part], _at_equal_compute(base), rates)


def tuned(base):
  """Each arm at the rates that `tuning` chose.

  On each set both that of the set itself and that of the other, so that a
  reader sees what was not tuned on.
  """
  for arm in _at_equal_compute(base):
    yield from product([arm], _rates(base, dict.fromkeys(RATES[arm[ARM]])))


def _as_long(base, factor, arm):
  """An arm and its strictest rival, trained for a multiple of the epochs."""
  schedule = {
    'epochs': factor * base.epochs,
    'optim.warmup': factor * base.optim.warmup,
  }
  base = base.copy_and_resolve_references()
  base.update_from_flattened_dict(schedule)
  return [arm | schedule, one_view_more_steps(base)]


def _for(factor):
  return Grid(lambda base: _as_long(base, factor, CSDNET))


def _fields(words, **fields):
  """An arm's fields of CSDNet."""
  own = {f'method.csdnet.{key}': value for key, value in fields.items()}
  return named(words, own)


_FORM = {'map': 'fine', 'fill': 'blur', 'inside': True}
# What may pay, and what each of its parts is worth.
FORMS = (
  _fields('erase, fine, blur, inside', mode='erase', **_FORM),
  _fields('fine, blur, inside', **_FORM),
  _fields('erase, blur', mode='erase', fill='blur'),
  _fields('colour'),
)
LITTLE = _fields('2 to 15 %', hidden=(0.02, 0.15))


def ssdp(base):
  """SSDP as it is, and where it hides little, against CSDNet without it."""
  del base
  return [SHIPPED, CSDNET, *product([CSDNET], FORMS, [LITTLE])]


def _frozen_bn(base):
  """Features left as they came: a head that fits them, and small steps."""
  return named(
    'frozen BatchNorm, head at the probe',
    {
      'model.freeze_bn': True,
      'init_head': 'probe',
      'optim.lr': 0.2 * base.optim.lr,
    },
  )


def recipe(base):
  """What else there is to choose, for CSDNet without SSDP and its rivals."""
  sweeps = {
    'alpha': (0.3, 3.0), 'beta': (0.3, 3.0), 'temperature': (1.0, 2.0),
    'margin': (0.2, 0.6), 'queue': (0,), 'aug_weight': (0.0,),
  }  # fmt: skip
  own = [
    arm
    for key, values in sweeps.items()
    for arm in field(f'method.csdnet.{key}', values)
  ]
  every = [*_rates(base, (0.3, 3.0)), _frozen_bn(base)]
  rivals = [one_view_more_steps(base), TWO_VIEWS, CLEVIT, SUPCON]
  arms = [SHIPPED, *product([SHIPPED], chain(own, every))]
  arms += [without(NO_SSDP, NO_SSDT), without(NO_SSDP, NO_DDL)]
  arms += product(rivals, chain([{}], every))
  for words, factor in (('a third', 1 / 3), ('twice', 2)):
    as_long = named(f'{words} as long', {})
    arms += product(
      _as_long(base, factor, SHIPPED), [as_long], [{}, _frozen_bn(base)]
    )
  sizes = [size for size in (160, 224) if size != base.model.size]
  arms += product([SHIPPED, rivals[0]], field('model.size', sizes))
  return arms


def soy_ageing(base):
  """Five stages, each trained by itself: the papers print their mean."""
  stages = field('data.name', [f'soy_ageing/{stage}' for stage in STAGES])
  return product([CSDNET, one_view_twice(base)], stages)


def backbone(base):
  """CSDNet on other networks, each from its own ImageNet weights."""
  names = ('efficientnet_lite1', 'efficientnet_lite2', 'vit_b16')
  weights = ('pretrained', 'pretrained', 'weights/ViT-B_16.npz')
  others = zip_(field('model.name', names), field('init_from', weights))
  arms = [CSDNET, one_view_twice(base)]
  return product(arms, chain([{}], others))


def _around(*sweeps):
  """CSDNet as it is, then what of the sweeps' product changes it."""

  def arms(base):
    now = flat(base.to_dict()) | CSDNET
    others = [
      overrides
      for overrides in product(*(field(key, values) for key, values in sweeps))
      if any(now[k] != v for k, v in overrides.items() if k != ARM)
    ]
    return chain([CSDNET], product([CSDNET], others))

  return Grid(arms)


def _sweep(name, *values):
  return f'method.csdnet.{name}', values


GRIDS = {
  'components': Grid(components),
  'baselines': Grid(baselines),
  'ssdp': Grid(ssdp, seeds=4),
  'recipe': Grid(recipe, seeds=4),
  'tuning': Grid(tuning, seeds=2, part='val'),
  'tuned': Grid(tuned),
  'short': _for(1 / 3),
  'long': _for(3),
  'soy_ageing': Grid(soy_ageing, config='configs/soy_ageing.py'),
  'backbone': Grid(backbone),
  'queue_length': _around(
    _sweep('queue', 0, 64, 128, 256, 512, 1024, 2048, 4096)
  ),
  'batch_size': _around(('batch_size', (4, 8, 16, 32))),
  'margin': _around(_sweep('margin', 0.0, 0.2, 0.4, 0.6, 0.8)),
  'alpha': _around(_sweep('alpha', 0.0, 0.1, 0.3, 1.0, 3.0)),
  'beta': _around(_sweep('beta', 0.0, 0.1, 0.3, 1.0, 3.0)),
  'temperature': _around(_sweep('temperature', 1.0, 2.0, 4.0, 8.0)),
  'ssdp_mode': _around(_sweep('mode', 'spotlight', 'erase', 'views', 'none')),
  'redraw': _around(
    _sweep('mode', 'spotlight', 'erase'), _sweep('redraw', False, True)
  ),
  'saliency': _around(_sweep('saliency', 'similarity', 'margin')),
  'kernel': _around(
    _sweep('kernel', 'content', 'box'), _sweep('kernel_size', 3, 5)
  ),
  'hidden_area': _around(
    _sweep('hidden', (0.05, 0.15), (0.15, 0.45), (0.3, 0.6), (0.45, 0.75))
  ),
  'direction': _around(
    _sweep('direction', 'symmetric', 'raw_to_aug', 'aug_to_raw')
  ),
  'averaging': _around(
    _sweep('averaging', 'separate', 'joint'),
    _sweep('exclude_same_image', False, True),
  ),
}
