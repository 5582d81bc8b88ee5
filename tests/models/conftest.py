"""Fixtures of the parity tests: the peers, and their table."""

import pytest

from parity import LIMIT


@pytest.fixture(scope='module')
def torch():
  return pytest.importorskip('torch')


@pytest.fixture(scope='module')
def transformers():
  return pytest.importorskip('transformers')


@pytest.fixture
def record(record_property, capsys):
  """Prints a row of the parity table, and holds it to the limit.

  The properties are what `experiments.report.parity` reads.
  """

  def write(what, size, found):
    record_property('what', what)
    record_property('px', size)
    for key, value in found.items():
      record_property(key, float(value))
    row = ' | '.join(f'{key} {value:.1e}' for key, value in found.items())
    with capsys.disabled():
      print(f'\nparity | {what} | {size} px | {row}')
    assert max(found.values()) < LIMIT, found

  return write
