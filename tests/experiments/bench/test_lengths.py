"""Lengths of fine-tuning: what is drawn, and what is said of the figures."""

import numpy as np
from PIL import Image

from experiments.bench import lengths


def test_all_folders_have_the_same_names_and_parts_of_their_own(tmp_path):
  rng = np.random.default_rng(0)
  for name in ('leaf99', 'grape58'):
    for kind in range(20):
      for i in range(8):
        path = tmp_path / 'data' / name / 'images' / f'{kind}' / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
  drawn = lengths.draw(
    tmp_path / 'data', tmp_path / 'work', 3, given=['--config.optim.lr=0.5']
  )
  again = lengths.draw(tmp_path / 'data', tmp_path / 'work', 3)
  names, digests = set(), []
  for plan, other in zip(drawn, again, strict=True):
    config, dataset, same = plan.config, plan.dataset, other.dataset
    assert dataset.train.names == same.train.names
    assert dataset.digests == same.digests
    assert config.method.name == 'csdnet' and dataset.val is None
    assert config.optim.lr == 0.5
    names.add(dataset.class_names)
    assert len(dataset.train.names) + len(dataset.test.names) == 16 * 8
    digests.append(frozenset(dataset.digests.values()))
  assert len(names) == 1 and len(names.pop()) == 16
  assert not digests[0] & digests[1]  # Of another set.
  assert digests[0] != digests[2]


def test_a_length_is_compared_folder_by_folder():
  said = '\n'.join(
    lengths.describe(
      'csdnet', {10: [40.0, 60.0], 20: [50.0, 74.0], 40: [52.0, 72.0]}
    )
  )
  assert said.startswith('CSDNet, 2 folders')
  assert '10 steps: top-1 50.0, -12.0 +- 0.0 to the longest' in said
  assert '20 steps: top-1 62.0, +0.0 +- 2.0' in said
  assert said.endswith('40 steps: top-1 62.0')
