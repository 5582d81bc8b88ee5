"""A whole run of segmentation in seconds: drawn streets, tiny networks."""

from csdnet_jax.configs import common

import streets

PARTS = {'train': 8, 'val': 2, 'test': 3}


def data(root):
  """Draws the data set; returns its root."""
  return streets.pairs(root, PARTS)


def config(root, arm='apd', **fields):
  """The config of a run of 4 steps on the data set at `root`."""
  c = common.segmentation(arm)
  c.name = 'tiny'
  c.init_from = ''
  c.batch_size = 4
  c.epochs = 2.0
  c.eval_every = 1.0
  c.save_every = 2
  c.log_every = 1
  c.data.update(source='pairs', root=str(root), canvas=72)
  c.data.cache = str(root / 'cache')
  c.model.update(name='psp_tiny', size=33, width=8)
  c.teacher.update(model='psp_tiny', dtype='float32')
  c.method.apd.hidden = 8
  if arm == 'teacher':
    c.model.width = 24
  c.update_from_flattened_dict(fields)
  return c
