"""The fine-tuning of PyTorch users: what is trained, at what rates, on what."""

import json

import numpy as np
import pytest

from csdnet_jax.runtime.errors import UserError

torch = pytest.importorskip('torch')

from experiments.bench import fine_tune, torch_nets  # noqa: E402

# Of a small EfficientNet-Lite: kernel, and so on as in `efficientnet.STAGES`.
_STAGES = ((1, 3, 1, 1, 8), (1, 3, 2, 6, 8))


def tiny(classes=2):
  torch.manual_seed(0)
  return torch_nets.Lite(classes, 16, stages=_STAGES, stem=8, top=16)


def rates_of(style, net, steps, epoch):
  """The highest and the lowest rate of each step of each stage."""
  found = []
  for stage in fine_tune.STYLES[style].stages(net, steps, epoch):
    optimiser, scheduler = stage.start()
    rates = []
    for _ in range(stage.steps):
      rates.append([group['lr'] for group in optimiser.param_groups])
      optimiser.step()
      scheduler.step()
    found.append((optimiser, np.array(rates)))
  return found


def test_the_layers_are_all_parameters_once_the_head_last():
  net = tiny()
  groups = fine_tune.layers(net)
  every = [id(p) for own in groups for p in own]
  assert sorted(every) == sorted(map(id, net.parameters()))
  assert {id(p) for p in groups[2]} == {id(p) for p in net.head.parameters()}
  assert all(groups)


def test_fastai_trains_the_head_first_and_then_all():
  net = tiny()
  (alone, first), (whole, rates) = rates_of('fastai', net, 60, 10)
  assert len(first) == 10
  assert len(rates) == 50
  trained = {id(p) for g in alone.param_groups for p in g['params']}
  assert id(net.head.weight) in trained
  assert id(net.stem.weight) not in trained
  assert id(net.stem_bn.weight) in trained
  every = [p for g in whole.param_groups for p in g['params']]
  assert len(every) == len(list(net.parameters()))
  assert all(p.requires_grad for p in every)
  # One cycle: from a fifth up to the highest at 30 %, and down to nothing.
  assert rates[0].max() == pytest.approx(1e-3 / 5)
  assert 12 < rates.max(1).argmax() < 18
  assert rates.max() == pytest.approx(1e-3, rel=0.01)
  np.testing.assert_allclose(rates.min(1), rates.max(1) / 100)
  assert rates[-1].max() < 1e-5


def test_timm_warms_up_and_goes_down_a_cosine():
  ((optimiser, rates),) = rates_of('timm', tiny(), 100, 2)
  assert rates[0].max() == pytest.approx(1e-5)
  assert rates[10].max() == pytest.approx(3e-4)
  assert rates[55].max() == pytest.approx(1.5e-4)
  assert rates[-1].max() < 1e-6
  for group in optimiser.param_groups:
    kinds = {p.ndim > 1 for p in group['params']}
    assert kinds == {group['weight_decay'] > 0}


@pytest.mark.parametrize('style', fine_tune.STYLES.values())
def test_views_are_of_the_picture_and_change_by_the_draw(style):
  torch.manual_seed(0)
  images = torch.randint(0, 255, (3, 3, 16, 16), dtype=torch.uint8)
  draws = torch.rand(3, 10)
  views = fine_tune.draw_views(draws, images, 16, style.views)
  assert views.shape == (3, 3, 16, 16)
  assert 0 <= views.min() < views.max() <= 1
  again = fine_tune.draw_views(draws, images, 16, style.views)
  assert torch.equal(views, again)
  others = fine_tune.draw_views(torch.rand(3, 10), images, 16, style.views)
  assert not torch.equal(views, others)


@pytest.mark.parametrize('style', fine_tune.STYLES)
def test_each_picture_is_named_by_a_net_of_the_other_folds(style, monkeypatch):
  """A picture of no fold is trained on, and never named."""
  monkeypatch.setattr(fine_tune, '_EPOCHS', 12)
  labels = torch.arange(24) % 2
  images = torch.randint(0, 90, (24, 3, 16, 16), dtype=torch.uint8)
  images[labels == 1] += 150
  folds = np.arange(24) // 2 % 3 - (np.arange(24) == 23) * 9
  folds = np.maximum(folds, -1)
  built, seen = [], []

  def build():
    built.append(tiny())
    return built[-1]

  train = fine_tune.train

  def watched(net, images, labels, *args, **fields):
    seen.append(len(images))
    return train(net, images, labels, *args, **fields)

  monkeypatch.setattr(fine_tune, 'train', watched)
  found = fine_tune.judge(
    build, images, labels, folds, fine_tune.STYLES[style], minutes=5
  )
  assert len(built) == found['folds'] == 3
  assert found['n'] == 23
  assert seen == [16, 16, 17]
  assert found['epochs'] == 12
  assert 0 <= found['top1'] <= 100


def test_folds_are_those_of_a_plan_or_of_a_file(tmp_path):
  path = tmp_path / 'folds.json'
  folds = {'ash/1.png': 0, 'oak/2.png': -1}
  path.write_text(json.dumps(folds))
  assert fine_tune.read_folds(path) == folds
  path.write_text(json.dumps({'folds': folds, 'batch': 8}))
  assert fine_tune.read_folds(path) == folds
  for wrong in ('[]', '{"a": "b"}', '{'):
    path.write_text(wrong)
    with pytest.raises(UserError, match='holds no folds'):
      fine_tune.read_folds(path)


def test_pictures_that_are_not_there_are_named(tmp_path):
  with pytest.raises(UserError, match=r'ash/1\.png cannot be read'):
    fine_tune.read_pictures(tmp_path, ['ash/1.png'], 16)
