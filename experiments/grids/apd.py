"""The questions that APD raises, as grids (see `grid.py`).

All points learn from one teacher, trained before:

  python -m experiments.run --grid=apd:components \
    --config.data.root=camvid --config.teacher.run=runs/camvid_teacher

A student that learns from a teacher takes as many steps and images as one that
does not; what the teacher's forward pass costs is in the minutes.
"""

from experiments.grid import Grid, chain, field, named, product

STUDENT = named('student', {'method.apd.arm': 'student'})
KD = named('KD', {'method.apd.arm': 'kd'})
CWD = named('CWD', {'method.apd.arm': 'cwd'})
SKD = named('SKD', {'method.apd.arm': 'skd'})
APD = named('APD', {'method.apd.arm': 'apd'})

NO_KD = named('without KD', {'method.apd.kd': 0.0})
NO_OBSERVATION = named('without observations', {'method.apd.observation': 0.0})
NO_ALIGNMENT = named('without alignment', {'method.apd.alignment': 0.0})


def distillers(base):
  """The student alone and beside its teacher, by each loss of the field."""
  del base
  return [STUDENT, KD, CWD, SKD, APD]


def components(base):
  """Each term of APD on and off; with none of them it is the student."""
  del base
  terms = product([{}, NO_KD], [{}, NO_OBSERVATION], [{}, NO_ALIGNMENT])
  some = [overrides for overrides in terms if len(overrides) < 4]
  return chain([STUDENT], product([APD], some))


def scope(base):
  """What shares prototypes: two images, one, or the whole batch."""
  del base
  return chain(
    [APD], product([APD], field('method.apd.scope', ('image', 'global')))
  )


GRIDS = {
  'distillers': Grid(distillers, config='configs/apd_camvid.py', seeds=3),
  'components': Grid(components, config='configs/apd_camvid.py', seeds=3),
  'scope': Grid(scope, config='configs/apd_camvid.py', seeds=3),
}
