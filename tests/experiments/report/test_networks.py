"""The costs that are kept are those of the networks."""

import pytest

from csdnet_jax.models import listing
from experiments.report import networks


@pytest.mark.slow
@pytest.mark.parametrize(
  'name',
  [
    'efficientnet_lite0',
    'resnet18',
    'vit_s16',
    'vit_splus16_dinov3',
    'vit_b16_bioclip',
    'convnext_t_dinov3',
    'swin_t',
    'psp_resnet18',
  ],
)
def test_a_cost_that_is_kept_is_what_is_measured(name):
  kept, found = listing.costs()[name], networks.measure(name)
  assert found[:2] == kept[:2]
  # XLA's count may change a little with its version.
  assert found.gflops == pytest.approx(kept.gflops, rel=0.02)
