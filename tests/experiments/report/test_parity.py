"""The parity table is made of what pytest says that its tests recorded."""

import pytest

from csdnet_jax.runtime.errors import UserError
from experiments.report import parity

CASE = """<testcase name="test_net[{px}]"><properties>
<property name="what" value="{what}" /><property name="px" value="{px}" />
<property name="features" value="{features}" />
<property name="logits" value="2e-07" />
<property name="gradient" value="3e-06" /></properties>{outcome}</testcase>"""
OTHER = '<testcase name="test_names" />'


def report(path, *cases):
  path.write_text(
    f'<testsuites><testsuite>{"".join(cases)}</testsuite></testsuites>'
  )
  return path


def case(what='ViT', px=224, features=1e-6, outcome=''):
  return CASE.format(what=what, px=px, features=features, outcome=outcome)


def test_the_largest_of_all_sizes_stands_in_the_table(tmp_path):
  path = report(tmp_path / 'a', case(), OTHER, case(px=448, features=5e-6))
  found = parity.measured(path)
  assert found[0] == ('ViT', 224, 1e-6, 2e-7, 3e-6)
  assert parity.table(found).splitlines()[2:] == [
    '| ViT | 224, 448 | 5.0e-06 | 2.0e-07 | 3.0e-06 |'
  ]


def test_what_was_not_run_again_stays(tmp_path, monkeypatch):
  monkeypatch.setattr(parity, 'FIGURES', tmp_path / 'parity.csv')
  monkeypatch.setattr(parity, 'PLACE', tmp_path / 'page.md')
  page = '<!-- parity: begin -->\n<!-- parity: end -->\n'
  parity.PLACE.write_text(page)
  parity.main([str(report(tmp_path / 'a', case('Swin'), case()))])
  parity.main([str(report(tmp_path / 'b', case(features=7e-6)))])
  assert [(x.what, x.features) for x in parity.kept()] == [
    ('Swin', 1e-6), ('ViT', 7e-6)
  ]  # fmt: skip
  assert '| ViT | 224 | 7.0e-06 |' in parity.PLACE.read_text()


@pytest.mark.parametrize(
  ('cases', 'words'),
  [
    ((case(), case(outcome='<failure />')), 'did not pass, test_net'),
    ((case(outcome='<skipped />'),), 'did not pass, test_net'),
    ((OTHER,), 'has no differences'),
    (('<testcase',), 'cannot be read'),
  ],
)
def test_no_table_is_made_of_what_did_not_pass(tmp_path, cases, words):
  with pytest.raises(UserError, match=words):
    parity.measured(report(tmp_path / 'a', *cases))


def test_every_family_of_networks_has_a_row():
  families = {row.what.split(',')[0] for row in parity.kept()}
  assert families >= {
    'ViT', 'DINOv2', 'DINOv3', 'DINOv3 ConvNeXt', 'ConvNeXt', 'CLIP', 'Swin',
    'resnet50',
  }  # fmt: skip
