"""On a GPU JAX multiplies float32 as TF32: what must be exact asks for more."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax.data import augment, resample
from csdnet_jax.methods import supcon
from csdnet_jax.methods.apd import perspective
from csdnet_jax.methods.csdnet import ddl, ssdp
from csdnet_jax.models import transformer

ROWS = np.float32(np.random.default_rng(0).standard_normal((6, 8)))
LABELS = np.arange(6) % 2
MAPS = ROWS[:4].reshape(2, 4, 4, 1).repeat(8, 3)
POSES = ROWS.reshape(8, 2, 3)[:2]

# What is exact, and whether its gradient is needed.
EXACT = {
  'cosines of DDL': (
    lambda z: ddl.loss(z, LABELS, LABELS, z, LABELS, LABELS)[0], ROWS, True,
  ),
  'cosines of SupCon': (
    lambda z: supcon.contrast(z, LABELS, z, LABELS), ROWS, True,
  ),
  'similarity of SSDP': (
    lambda x: ssdp.similarity_map(x, ROWS[:2]), MAPS, False,
  ),
  'margin of SSDP': (
    lambda x: ssdp.margin_map(x, jnp.array(ROWS.T), ROWS[:2, :6], LABELS[:2]),
    MAPS, False,
  ),
  'SSDP brought to the view': (
    lambda x: ssdp.upsample(x[..., 0], 9, 9), MAPS, False,
  ),
  'poses': (
    lambda x: augment.carry(x[..., 0], POSES, POSES[::-1], size=4),
    MAPS, False,
  ),
  'prototypes': (
    lambda x: perspective.prototypes(x, LABELS, classes=2)[0], ROWS, True,
  ),
  'observations': (lambda x: perspective.observe(x, ROWS[:2]), ROWS, True),
  'position embeddings': (
    lambda x: transformer.resize_bicubic(x, 9, 9), MAPS, False,
  ),
  'logits at full size': (lambda x: resample.upsample(x, 9, 9), MAPS, True),
  'grey': (augment._grey, MAPS[..., :3], False),
}  # fmt: skip


@pytest.mark.parametrize('name', EXACT)
def test_what_must_be_exact_asks_for_it(name):
  function, x, differentiated = EXACT[name]
  if differentiated:
    function = jax.grad(lambda x, f=function: jnp.sum(f(x) ** 2))
  lowered = jax.jit(function).trace(x).lower(lowering_platforms=('cuda',))
  products = [
    line
    for line in lowered.as_text().splitlines()
    if re.search(r'stablehlo\.(dot|dot_general|convolution)\b', line)
  ]
  assert products
  assert all('HIGHEST' in line for line in products), products
  assert not any('DEFAULT' in line for line in products), products
