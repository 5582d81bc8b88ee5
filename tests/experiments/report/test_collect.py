"""Tables of results: what is averaged, and what is refused."""

import pytest

from csdnet_jax.runtime.errors import UserError
from experiments.report import collect, text

from lines import CODE, IMAGES, first, judged, line, split_anew


def test_means_and_paired_differences():
  rows = [line('base', s, first(20 + s)) for s in range(3)]
  rows += [line('<b>$x', s, first(24 + s)) for s in range(3)]
  (table,) = collect.tables(rows)
  base, other = table.arms
  assert (base.mean, base.sd) == (pytest.approx(52.5), pytest.approx(2.5))
  assert base.diff is None and other.diff == pytest.approx(10.0)
  # Seeds differ in one image each; the arms always in four of the forty.
  assert 0 < other.low < 10 < other.high < 25
  assert base.spread[0] < 52.5 < base.spread[1]


def test_stages_are_averaged_and_an_unfinished_arm_is_left_out():
  rows = [
    line(arm, 0, first(n), set_=f'soy/{stage}', **{'data.name': stage})
    for arm, stage, n in [
      ('base', 'R1', 10), ('base', 'R3', 30), ('a', 'R1', 20), ('a', 'R3', 40),
      ('late', 'R1', 1),
    ]
  ]  # fmt: skip
  (table,) = collect.tables(rows)
  assert table.stages == 2 and table.images == (2 * IMAGES,) * 2
  assert [(a.name, a.mean) for a in table.arms] == [('base', 50), ('a', 75)]
  assert 'Not finished: late.' in text.describe(table)


@pytest.mark.parametrize(
  ('second', 'words'),
  [
    ({'optim.lr': 0.5}, r'config.optim.lr 0.001 but .* has 0.5'),
    (
      {'code': CODE | {'csdnet_jax/models': '2'}},
      r'csdnet_jax/models: 1 and 2',
    ),
    ({'code': {'commit': '3fbbd39'}}, 'commit: not known and 3fbbd39'),
    ({'method.csdnet.beta': 0.5}, 'method.csdnet.beta'),
  ],
)
def test_what_differs_is_named_and_refused(second, words):
  rows = [line('base', 0, first(3)), line('base', 1, first(3), **second)]
  with pytest.raises(UserError, match=words):
    collect.tables(rows)


def test_arms_of_different_train_images_are_refused():
  rows = [line('base', 0, first(3)), line('a', 0, first(3))]
  rows[1]['split'] = 'other'
  with pytest.raises(UserError, match='a .seed 0. were trained on different'):
    collect.tables(rows)
  for row in rows:
    row['overrides'].append('data.shots')
  assert len(collect.tables(rows)[0].arms) == 2


def test_arms_are_paired_within_seeds_of_splits_of_their_own():
  # Of 40, 30 and 20 test images.
  right = {0: first(20), 1: first(18)[:30], 2: first(10)[:20]}
  more = {0: first(24), 1: first(18)[:30], 2: first(12)[:20]}
  rows = [split_anew('base', s, x) for s, x in right.items()]
  rows += [split_anew('a', s, x) for s, x in more.items()]
  (table,) = collect.tables(rows)
  base, a = table.arms
  assert (base.splits, a.splits, table.images) == (3, 3, (20, IMAGES))
  # The seeds' differences are 10, 0 and 10: 6.67 ± 4.303 x 5.774 / sqrt(3).
  assert (a.diff, a.visible) == pytest.approx((20 / 3, 14.342), abs=1e-3)
  assert a.ends == pytest.approx((a.diff - a.visible, a.diff + a.visible))
  words = text.describe(table)
  assert 'on 20 to 40 test images' in words
  assert 'intervals are over re-splits of these images.' in words
  assert '| a | 3 | 3 | 60.0 ± 0.0 | 60.0 to 60.0 | +6.7 |' in text.markdown(
    table
  )


def test_arms_of_the_same_runs_could_have_seen_nothing():
  rows = [line(a, s, first(20 + s)) for s in range(2) for a in ('base', 'a')]
  (table,) = collect.tables(rows)
  assert table.arms[1].ends == (0, 0) and table.arms[1].visible is None


def test_seeds_of_one_split_say_so():
  rows = [line('base', s, first(20 + s)) for s in range(2)]
  (table,) = collect.tables(rows)
  assert table.arms[0].splits == 1
  assert 'One split: intervals are over seeds and images of this split.' in (
    text.describe(table)
  )


def test_within_a_seed_split_and_test_images_must_agree():
  rows = [split_anew(a, s, first(9)) for s in (0, 1) for a in ('base', 'a')]
  assert len(collect.tables(rows)[0].arms) == 2
  other = split_anew('a', 1, first(9), images='other')
  with pytest.raises(UserError, match='a .seed 1. were evaluated on different'):
    collect.tables([*rows, other])
  other = split_anew('a', 1, first(9)) | {'split': 'other'}
  with pytest.raises(UserError, match='a .seed 1. were trained on different'):
    collect.tables([*rows, other])
  other = split_anew('a', 1, first(9), **{'data.split_seed': 7})
  with pytest.raises(UserError, match='split_seed 1 but a .seed 1. has 7'):
    collect.tables([*rows, other])


def test_seeds_of_one_split_and_of_splits_of_their_own_are_never_averaged():
  rows = [split_anew('base', s, first(9)) for s in (0, 1, 2)]
  rows += [split_anew('base', 3, first(9), **{'data.split_seed': 0})]
  with pytest.raises(UserError, match='seed 0. and base .seed 3. share'):
    collect.tables(rows)


def test_what_is_split_anew_is_a_table_of_its_own():
  rows = [line('base', s, first(3)) for s in (0, 1)]
  for row in [split_anew('base', s, first(9)) for s in (0, 1)]:
    row['config']['data.resplit'] = True
    rows.append(row)
  one, anew = collect.tables(rows)
  assert (one.set, anew.set) == ('grape58', 'grape58, split anew')
  assert (one.arms[0].splits, anew.arms[0].splits) == (1, 2)


def test_a_later_line_replaces_the_one_of_other_code():
  rows = [line('base', s, first(3)) for s in (0, 1)]
  rows += [
    line('base', s, first(9), code={'csdnet_jax/*.py': '2'}) for s in (0, 1)
  ]
  (table,) = collect.tables(rows)
  assert table.arms[0].mean == 22.5 and len(table.arms[0].seeds) == 2


def test_what_only_some_methods_read_need_not_agree():
  one = line('base', 0, first(3), **{'method.name': 'supervised'})
  other = line('a', 0, first(3))
  other['overrides'].append('method.name')
  one['overrides'].append('method.name')
  assert len(collect.tables([one, other])[0].arms) == 2


def test_what_the_grid_sets_may_differ_between_arms():
  rows = [line('base', 0, first(3))]
  rows += [line('a', 0, first(3), **{'method.csdnet.beta': 0.5})]
  assert len(collect.tables(rows)[0].arms) == 2


def test_an_absent_baseline_and_an_absent_part_are_refused():
  rows = [line('base', 0, first(3))]
  with pytest.raises(UserError, match='no arm x on grape58.*base'):
    collect.tables(rows, baseline='x')
  with pytest.raises(UserError, match='no validation part'):
    collect.tables(rows, part='val')


def test_what_chooses_is_judged_on_the_validation_part():
  rows = [
    line('base', seed, first(3)) | {'part': 'val', 'val': judged(first(12))}
    for seed in range(2)
  ]
  for asked, part, mean in ('', 'val', 30.0), ('test', 'test', 7.5):
    (table,) = collect.tables(rows, part=asked)
    assert (table.part, table.arms[0].mean) == (part, mean)


def test_grids_are_collected_apart():
  rows = [line('base', 0, first(n)) | {'grid': str(n)} for n in (3, 30)]
  assert [t.arms[0].mean for t in collect.tables(rows)] == [7.5, 75.0]


def test_code_that_no_commit_holds_is_marked_and_never_joined():
  dirty = CODE | {'csdnet_jax/models': '2+dirty'}
  rows = [line('base', s, first(3), code=dirty) for s in (0, 1)]
  (table,) = collect.tables(rows)
  assert 'Made by code that no commit holds.' in text.describe(table)
  assert 'Made by' not in text.describe(
    *collect.tables([line('base', 0, first(3))])
  )
  for code in (CODE, CODE | {'csdnet_jax/models': '3+dirty'}):
    with pytest.raises(UserError, match=r'made by different code .*\+dirty'):
      collect.tables([*rows, line('a', 0, first(3), code=code)])


def test_modules_from_outside_need_agree_only_where_arms_share_them():
  rows = [line('base', 0, first(3))]
  rows += [line('a', s, first(3), code=CODE | {'mine': 'x'}) for s in (0, 1)]
  assert len(collect.tables(rows)[0].arms) == 2
  for arm in ('a', 'b'):
    other = line(arm, 2, first(3), code=CODE | {'mine': 'y'})
    with pytest.raises(UserError, match='different code .mine: x and y'):
      collect.tables([*rows, other])


def test_one_seed_has_no_interval():
  rows = [line(a, 0, first(n)) for a, n in (('base', 20), ('a', 22))]
  rows += [line('a', 1, first(22))]
  base, other = collect.tables(rows)[0].arms
  assert base.spread is None and other.spread is not None
  assert other.diff == 5 and other.ends is None
