"""`csdnet models`: every network, and what is known of its weights."""

import pytest

from csdnet_jax import __main__ as command_line, models
from csdnet_jax.models import listing
from csdnet_jax.models.weights import hub, published


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
  from huggingface_hub import constants

  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))


def said(capsys, *argv):
  status = command_line.main(['models', *argv])
  return status, capsys.readouterr().out


def test_every_network_has_a_line_with_its_cost_and_licence(capsys):
  status, out = said(capsys)
  assert status == 0
  lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
  assert models.MODELS.keys() <= lines.keys()
  assert lines['vit_s16'] == [
    '224', '21.7M', '9.3', 'ImageNet-21k', 'apache-2.0'
  ]  # fmt: skip
  assert lines['vit_s16_dinov3'][-2:] == ['LVD-1689M', 'dinov3-license']
  assert lines['efficientnet_lite0'][-2:] == ['apache-2.0', 'yes']
  assert lines['psp_resnet18'] == ['473', '16.9M', '127.1']


def test_what_is_fetched_is_said_to_be_here(capsys, monkeypatch):
  monkeypatch.setattr(hub, 'is_fetched', lambda weights: weights.size == 384)
  _, out = said(capsys)
  here = {x.split()[0] for x in out.splitlines() if x.rstrip().endswith('yes')}
  assert {'swin_b_w12', 'swin_l_w12'} <= here
  assert 'swin_b' not in here


def test_all_that_is_known_of_one_network_is_said(capsys):
  _, out = said(capsys, 'vit_b14_dinov2')
  weights = published.find('vit_b14_dinov2')
  for word in (
    'huggingface.co/facebook/dinov2-base', weights.revision, weights.sha256,
    'apache-2.0', '518 px, bicubic', '0.485 0.456 0.406', '86,579,712',
  ):  # fmt: skip
    assert word in out
  _, out = said(capsys, 'swin_t')
  assert out.count('pinned at the first fetch') == 2
  _, out = said(capsys, 'vit_l16_dinov3')
  assert published.find('vit_l16_dinov3').terms in out
  _, out = said(capsys, 'psp_resnet18')
  assert 'none are known' in out
  status, out = said(capsys, 'swim_t')
  assert status == 2 and "did you mean 'swin_t'?" in out


def test_the_costs_are_of_the_networks_that_there_are():
  assert listing.costs().keys() == models.MODELS.keys()
  for name, weights in published.WEIGHTS.items():
    assert listing.costs()[name].size == weights.size, name
