"""APD and its peers: a small segmentation network beside a frozen large one.

  student   CE(s, y) + w CE(s_aux, y)
  kd        student + a KD(s, t)
  cwd       student + c CWD(s, t)
  skd       student + a KD(s, t) + b pair-wise(f_s, f_t)
  apd       student + a KD(s, t) + o KL(z_s, z_t) + d align(p_s, p_t)

with logits s and t, penultimate maps f, and of the projected maps the
prototypes p and the adaptive observations z (`perspective.py`). In `apd` the
projector of the teacher learns too, from the cross-entropy of z_t alone and by
its own Adam: the sum of both losses is one objective on disjoint parameters.
Adaptive Perspective Distillation, TPAMI 2022 (10.1109/TPAMI.2022.3159581); the
weights are those of its release, SKD's pair-wise one that of SKD's (Liu et al.,
CVPR 2019), CWD's our choice. The teacher is trained as a student is.
"""

import json

import jax
import jax.numpy as jnp
import optax

from csdnet_jax import models, sharding
from csdnet_jax.data import augment, resample
from csdnet_jax.methods import base
from csdnet_jax.methods.apd import distill, perspective
from csdnet_jax.models import Model
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import Field

# What learns from a teacher.
DISTILLED = ('kd', 'cwd', 'skd', 'apd')
ARMS = ('teacher', 'student', *DISTILLED)

FIELDS = {
  'arm': Field('apd', choices=ARMS),
  'aux_weight': Field(0.4, low=0),  # Of the auxiliary head's cross-entropy.
  # Weight of plain KD, a mean over pixels and classes.
  'kd': Field(10.0, low=0),
  # Weight of the KL between the adaptive observations.
  'observation': Field(10.0, low=0),
  'alignment': Field(10.0, low=0),  # Of the distance between the prototypes.
  'channel': Field(3.0, low=0),  # Of CWD, in its arm: our choice.
  # Of the pair-wise term of the arm skd: its release.
  'pair': Field(0.5, low=0),
  # What shares prototypes.
  'scope': Field('group', choices=('group', 'image', 'global')),
  'group': Field(2, low=1),  # Images of a group.
  'scale': Field(10.0, low=1e-3),  # Of the cosines that make an observation.
  'hidden': Field(512, low=1),  # Channels inside and behind the projectors.
  'mask_ignored': Field(False),  # Leave ignored pixels out of both KLs.
}


def make(config, model: Model) -> base.Method:
  """Returns the arm `config.method.apd.arm`.

  Args:
    config: of the run; reads `crops`, `teacher` and `method.apd`.
    model: the student.
  """
  c, size = config.method.apd, config.model.size
  shapes, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), size))
  classes = model.head(shapes)[1].shape[0]
  teacher = _teacher(config, classes) if c.arm in DISTILLED else None

  def views(keys, batch):
    """A random crop of each image and its mask; weight 0 hides the mask."""
    images, labels = augment.sample_pairs(
      keys,
      *(batch[k] for k in ('image', 'mask', 'extent', 'centre', 'scale')),
      size=size, rotate=config.crops.rotate, flip=config.crops.flip,
      blur=config.crops.blur,
    )  # fmt: skip
    unused = (batch['weight'] == 0)[:, None, None]
    return batch | {
      'raw': images,
      'label': jnp.where(unused, augment.IGNORE, labels),
    }

  def loss(params, context, batch, key):
    images, labels, axis = batch['raw'], batch['label'], context.axis
    keys = jax.random.fold_in(key, 0)
    student, state = model.apply(
      params, context.model_state, images, train=True,
      keys=sharding.row_keys(keys, labels.shape[0], axis), axis=axis,
    )  # fmt: skip
    labelled = labels != augment.IGNORE
    ours = share(labelled, axis)
    terms = {
      'ce': ours * perspective.cross_entropy(student.logits, labels),
      'ce_aux': ours * perspective.cross_entropy(student.aux, labels),
    }
    total = terms['ce'] + c.aux_weight * terms['ce_aux']
    if teacher is not None:
      target, _ = teacher.apply(*context.frozen, images, train=False)
      target = jax.lax.stop_gradient(target)
      distilled, weighted = distillation(params, student, target, labels, axis)
      terms |= distilled
      total = total + weighted
    metrics = terms | {
      'loss': total,
      'labelled': 100.0 * jnp.mean(labelled),
      'crops_without_label': 100.0 * jnp.mean(batch['weight'] == 0),
    }
    return total, base.Aux(state, (), metrics)

  def distillation(params, student, target, labels, axis):
    """The arm's terms, and their weighted sum."""
    labelled = labels != augment.IGNORE
    # A crop without any label counts nowhere.
    counted = jnp.any(labelled, axis=(1, 2))
    mask = labelled if c.mask_ignored else every_pixel(counted, labels)
    terms = {}
    if c.arm == 'cwd':
      terms['cwd'] = share(counted, axis) * distill.channelwise(
        student.logits, target.logits, counted=counted
      )
      return terms, c.channel * terms['cwd']
    terms['kd'] = share(mask, axis) * perspective.logit_kd(
      student.logits, target.logits, labels.shape[1:], mask=mask
    )
    total = c.kd * terms['kd']
    if c.arm == 'skd':
      terms['pair'] = share(counted, axis) * distill.pairwise(
        student.features, target.features, counted=counted
      )
      total += c.pair * terms['pair']
    elif c.arm == 'apd':
      terms |= perspectives(params, student, target, labels, mask, axis)
      total += c.observation * terms['observation']
      total += c.alignment * terms['alignment'] + terms['ce_teacher_projector']
    return terms, total

  def every_pixel(counted, labels):
    return jnp.broadcast_to(counted[:, None, None], labels.shape)

  def perspectives(params, student, target, labels, mask, axis):
    """APD's three terms: the mean over groups that share prototypes."""
    features = (
      project(params['projector'], student.features),
      project(params['teacher_projector'], target.features),
    )
    mask = resample.subsample(mask, *student.features.shape[1:3])
    if c.scope == 'global':
      terms = of_group(*features, labels, mask, axis)
      terms['observation'] *= share(mask, axis)
      terms['ce_teacher_projector'] *= share(labels != augment.IGNORE, axis)
      return terms
    n = 1 if c.scope == 'image' else c.group
    rows = *features, labels, mask
    grouped = (x.reshape(-1, n, *x.shape[1:]) for x in rows)
    return jax.tree.map(jnp.mean, jax.vmap(of_group)(*grouped))

  def of_group(student, teacher, labels, mask, axis=None):
    """The terms of [g, h, w, D] features, [g, H, W] labels, [g, h, w] mask."""
    small = resample.subsample(labels, *student.shape[1:3])
    ours, present = perspective.prototypes(
      student.reshape(-1, c.hidden), small.reshape(-1), classes=classes,
      axis=axis,
    )  # fmt: skip
    theirs, _ = perspective.prototypes(
      teacher.reshape(-1, c.hidden), small.reshape(-1), classes=classes,
      axis=axis,
    )  # fmt: skip
    seen = perspective.observe(student, ours, scale=c.scale)
    target = perspective.observe(teacher, theirs, scale=c.scale)
    return {
      'observation': perspective.observation_kl(
        seen, target, present, mask=mask
      ),
      'alignment': perspective.alignment(ours, theirs, present),
      'ce_teacher_projector': perspective.cross_entropy(target, labels),
    }  # fmt: skip

  return base.Method(
    init_memory=lambda width: (),
    views=views,
    loss=loss,
    update_memory=lambda memory, push: memory,
    predict=base.predictor(model),
    pictures=lambda params, model_state, batch, key: {},
    forwards=1,
    group=c.group if c.arm == 'apd' and c.scope == 'group' else 1,
    extras=_projectors(config, teacher) if c.arm == 'apd' else {},
    teacher=teacher,
  )


def share(counted: jax.Array, axis: str | None) -> jax.Array:
  """What a device's mean over `counted` pixels weighs in that over devices.

  The mean over devices of share * (mean over a device's pixels) is the mean
  over all their pixels, however unevenly they have labels.

  Args:
    counted: bool, of this device.
    axis: the device axis, or None.

  Returns:
    [] float32, 1 on one device.
  """
  n = jnp.sum(counted, dtype=jnp.float32)
  return n / jnp.maximum(sharding.mean(n, axis), 1e-6)


def project(params, features: jax.Array) -> jax.Array:
  """`perspective.project` of [..., D] features, [..., hidden]."""
  hidden, out = params['hidden'], params['out']
  return perspective.project(
    features, hidden['kernel'], hidden['bias'], out['kernel'], out['bias']
  )


def init_projector(key: jax.Array, width: int, hidden: int):
  """Returns a projector as PyTorch draws one: uniform in +-1 / sqrt(inputs).

  Args:
    key: of the draw.
    width: D, of the features.
    hidden: channels inside it and behind it.
  """

  def layer(key, inputs):
    keys, bound = jax.random.split(key), inputs**-0.5
    return {
      name: jax.random.uniform(keys[i], shape, jnp.float32, -bound, bound)
      for i, (name, shape) in enumerate(
        {'kernel': (inputs, hidden), 'bias': (hidden,)}.items()
      )
    }

  first, second = jax.random.split(key)
  return {'hidden': layer(first, width), 'out': layer(second, hidden)}


def _projectors(config, teacher: Model) -> dict[str, base.Extra]:
  """The student's, in its own optimiser, and the teacher's, under Adam."""
  hidden, size = config.method.apd.hidden, config.model.size
  shapes, _ = jax.eval_shape(lambda: teacher.init(jax.random.key(0), size))
  theirs = teacher.head(shapes)[0].shape[0]
  return {
    'projector': base.Extra(
      lambda key, width: init_projector(key, width, hidden)
    ),
    # The rate is constant in effect: the release's decay loops over nothing.
    'teacher_projector': base.Extra(
      lambda key, width: init_projector(key, theirs, hidden),
      optax.adam(1e-5, 0.9, 0.99),
    ),
  }


def _teacher(config, classes: int) -> Model:
  t = config.teacher
  if not t.model:
    raise UserError(
      f'The arm {config.method.apd.arm!r} needs a teacher: set '
      'config.teacher.run=DIR, or config.teacher.weights=FILE and '
      'config.teacher.model to the name of its network.'
    )
  return models.build(
    t.model, classes=classes, drop_rate=0.0, drop_path=0.0, dtype=t.dtype,
    **({'width': t.width} if t.width else {}),
  )  # fmt: skip


def fit(config, n_train: int) -> list[str]:
  """Takes over what a teacher's run says of its network, in place.

  Args:
    config: of the run; `teacher.model` and `teacher.width` are changed.
    n_train: training images.

  Returns:
    What was changed, in sentences.

  Raises:
    UserError: if the teacher's run is no run.
  """
  del n_train
  arm, t, notes = config.method.apd.arm, config.teacher, []
  path = paths.of(t.run) / 'config.json' if t.run else None
  if arm in DISTILLED and path and path.parent.is_dir():
    if not path.exists():
      raise UserError(f'{t.run} is not the workdir of a run: no config.json.')
    theirs = json.loads(paths.read_bytes(path))['model']
    if (theirs['name'], theirs['width']) != (t.model, t.width):
      notes.append(f'The teacher {t.run} is {theirs["name"]}.')
    t.model, t.width = theirs['name'], theirs['width']
  return notes


SPEC = base.MethodSpec(make, FIELDS, task='segmentation', fit=fit)
