"""For which device a network is traced."""

import types

import jax
import pytest

from csdnet_jax.models import target


def _device(platform, version='', capability='9.0'):
  return types.SimpleNamespace(
    platform=platform, compute_capability=capability,
    client=types.SimpleNamespace(platform_version=version),
  )  # fmt: skip


@pytest.mark.parametrize(
  ('device', 'wanted'),
  [
    (_device('cpu'), 'cpu'),
    (_device('tpu'), 'tpu'),
    (_device('gpu', 'PJRT C API\ncuda 12080'), 'cuda'),
    (_device('gpu', 'PJRT C API\ncuda 12080', '8.0'), 'cuda'),
    (_device('gpu', 'PJRT C API\ncuda 12080', '12.1'), 'cuda'),
    (_device('gpu', 'PJRT C API\ncuda 12080', '7.5'), 'gpu'),
    (_device('gpu', 'PJRT C API\nrocm 60300', 'gfx942'), 'gpu'),
  ],
)
def test_a_gpu_is_cuda_where_cudnn_has_attention(device, wanted):
  assert target.of(device) == wanted


def test_the_outermost_says_what_is_compiled_for():
  assert target.platform() == 'cpu' == target.of(jax.devices()[0])
  inner = target.traced_for('tpu', target.platform)
  assert inner() == 'tpu'
  with target.compiled_for('cuda'):
    assert (target.platform(), inner()) == ('cuda', 'cuda')
  assert target.platform() == 'cpu'
