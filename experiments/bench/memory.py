r"""The peak memory of APD's step, ours and PyTorch's, without running it.

  python -m experiments.bench.memory --student=psp_resnet18 \
    --teacher=psp_resnet101 --size=713 --batch=2 --classes=150

Ours is what XLA reserves for the compiled step. Of the peer, `torch_apd` run
eagerly, every tensor is a fake one, whose bytes PyTorch counts from its making
to its end. Both are float32, the teacher too, and hold weights, optimiser state
and the batch; ours draws its crops as well.
"""

import jax
from absl import app, flags

from csdnet_jax.runtime import commands
from csdnet_jax.training.build import build
from experiments.bench import measure, step


def ours(config, classes: int) -> int:
  """Bytes of the step that the first device's compiler reserves."""
  run = build(config, classes=classes, n_train=1000, devices=jax.devices()[:1])
  key, size = jax.random.key(0), config.model.size
  frozen = jax.eval_shape(lambda: run.method.teacher.init(key, size))
  batch = step.synthetic_batch(config, classes)
  lowered = run.train_step.trace(jax.eval_shape(run.init), batch, frozen)
  m = lowered.lower().compile().memory_analysis()
  return (
    m.argument_size_in_bytes
    + m.output_size_in_bytes
    - m.alias_size_in_bytes
    + m.temp_size_in_bytes
  )


def peer(config, classes: int) -> int:
  """Bytes of all tensors of the peer's second step, at their peak."""
  import torch
  from torch._subclasses.fake_tensor import FakeTensorMode
  from torch.distributed._tools.mem_tracker import MemTracker

  from experiments.bench import torch_apd, torch_segmentation

  c = config.method.apd
  with FakeTensorMode():
    student, teacher = (
      torch_segmentation.make(name, classes=classes, width=width)
      for name, width in (
        (config.model.name, config.model.width),
        (config.teacher.model, config.teacher.width),
      )
    )
    projectors = torch.nn.ModuleDict(
      {
        name: torch_apd.Projector(net.head.in_channels, c.hidden)
        for name, net in (
          ('projector', student),
          ('teacher_projector', teacher),
        )
      }
    )
    nets = torch_apd.Nets(student.train(), teacher.eval(), projectors)
    optimisers = torch_apd.optimisers(config, nets)
    rows, size = config.batch_size, config.model.size
    images = torch.rand(rows, 3, size, size)
    labels = torch.zeros(rows, size, size, dtype=torch.long)
    tracker = MemTracker()
    tracker.track_external(student, teacher, projectors, images, labels)
    with tracker:
      # The optimisers' state is there from the second step on.
      for _ in range(2):
        tracker.reset_mod_stats()
        torch_apd.loss(nets, images, labels, config).backward()
        for optimiser in optimisers:
          optimiser.step()
          optimiser.zero_grad(set_to_none=True)
    (snapshot,) = tracker.get_tracker_snapshot('peak').values()
  return snapshot['Total']


FLAGS = flags.FLAGS


def define_flags() -> None:
  """The flags of this command."""
  flags.DEFINE_string('student', 'psp_resnet18', 'The network that is trained.')
  flags.DEFINE_string('teacher', 'psp_resnet101', 'The frozen one.')
  flags.DEFINE_integer('size', 713, 'Pixels a side.')
  flags.DEFINE_integer('batch', 2, 'Images a step.')
  flags.DEFINE_integer('classes', 150, 'Of the heads.')
  flags.DEFINE_integer('width', 0, "Of the student's head; 0 for 512.")
  flags.DEFINE_string(
    'results', str(measure.RESULTS), 'Where the JSON is kept; empty for none.'
  )


def main(argv) -> None:
  """Measures and prints."""
  del argv
  commands.quiet()
  config = step.make_config(
    backbone=FLAGS.student, size=FLAGS.size, batch=FLAGS.batch, method='apd',
    teacher=FLAGS.teacher, width=FLAGS.width,
  )  # fmt: skip
  fields = {
    'backbone': FLAGS.student, 'teacher': FLAGS.teacher, 'size': FLAGS.size,
    'batch': FLAGS.batch, 'classes': FLAGS.classes, 'width': FLAGS.width,
    'dtype': config.model.dtype,
  }  # fmt: skip
  found = {
    'peak_memory': ours(config, FLAGS.classes),
    'peer_peak_memory': peer(config, FLAGS.classes),
  }
  found['memory_ratio'] = round(
    found['peak_memory'] / found['peer_peak_memory'], 3
  )
  names = ('backbone', 'teacher', 'size', 'batch', 'classes', 'width')
  name = ' '.join(['memory', *(str(fields[name]) for name in names)])
  result = measure.record('memory', fields | found)
  measure.publish(result, name, FLAGS.results)


if __name__ == '__main__':
  define_flags()
  app.run(main)
