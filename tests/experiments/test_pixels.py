"""What a line holds of segmented images."""

import numpy as np

from experiments import pixels


def test_pixels_survive_in_the_order_of_the_names(tmp_path):
  path = tmp_path / 'counts.npz'
  names = [f'test/{i}.png' for i in range(30)]
  rng = np.random.default_rng(0)
  counts = {name: rng.integers(0, 99, (3, 4)) for name in names}

  def pack(order):
    np.savez(path, names=order, counts=[counts[name] for name in order])
    return pixels.pack(path)

  kept = pack(names)
  np.testing.assert_array_equal(
    pixels.unpack(kept), [counts[name] for name in sorted(names)]
  )
  assert kept == pack(names[::-1])
  counts['test/3.png'][1] += 1  # Another label.
  assert kept['images'] != pack(names)['images']
