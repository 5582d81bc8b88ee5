"""A prepared TFDS set by name: read back as its files, or refused in words."""

import io
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from csdnet_jax.config import default, validate
from csdnet_jax.data import decode, sources
from csdnet_jax.data.images import tfds as stored
from csdnet_jax.runtime.errors import UserError

import images


class MadeLeaves(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Two pictures a split; their labels alternate."""

  VERSION = tfds.core.Version('1.2.0')
  code_path = None
  splits = ('train', 'test')
  features = {
    'image': tfds.features.Image(),
    # Read by nobody, like CUB's: its bytes would not decode.
    'segmentation_mask': tfds.features.Image(shape=(None, None, 1)),
    'label': tfds.features.ClassLabel(names=['oak', 'ash']),
  }

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(self.features),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {split: self._generate_examples(split) for split in self.splits}

  def _generate_examples(self, split):
    for i in range(2):
      example = {
        'image': io.BytesIO(picture(split, i)),
        'segmentation_mask': io.BytesIO(b'no picture'),
        'label': i,
      }
      yield i, {key: example[key] for key in self.features}


def picture(split, i):
  return images.encode(images.pixels(len(split) + i))


def prepare(root, file_format='array_record', **attributes):
  made = type('MadeLeaves', (MadeLeaves,), attributes, skip_registration=True)
  builder = made(data_dir=root)
  builder.download_and_prepare(file_format=file_format)
  return builder


def load(root, name='made_leaves'):
  return stored.load(name, data_dir=str(root))


def test_gives_back_the_bytes_the_labels_and_the_classes(tmp_path):
  prepare(tmp_path)
  dataset = load(tmp_path)
  assert dataset.class_names == ('oak', 'ash')
  assert dataset.val is None
  for split in ('train', 'test'):
    part = getattr(dataset, split)
    assert part.names == (f'{split}/0', f'{split}/1')
    assert part.labels.dtype == np.int32 and part.labels.tolist() == [0, 1]
    for i in range(2):
      assert part.read(i) == picture(split, i)
      decode.decode(part.read(i), 'x')
  assert 'tensorflow' not in sys.modules


def test_validation_is_the_test_part_where_there_is_no_test(tmp_path):
  prepare(tmp_path, splits=('train', 'validation'))
  dataset = load(tmp_path)
  assert dataset.val is None
  assert dataset.test.names == ('validation/0', 'validation/1')


def test_validation_selects_where_there_is_a_test_too(tmp_path):
  prepare(tmp_path, splits=('train', 'validation', 'test'))
  dataset = load(tmp_path)
  assert dataset.val.names == ('validation/0', 'validation/1')
  assert dataset.test.names == ('test/0', 'test/1')


def test_the_config_reads_it_by_name(tmp_path):
  prepare(tmp_path)
  config = default()
  config.data.update(source='tfds', name='made_leaves', root=str(tmp_path))
  validate(config)
  assert sources.load_images(config.data).train.names == ('train/0', 'train/1')


def test_an_absent_set_names_the_command_that_prepares_it(tmp_path):
  with pytest.raises(UserError) as e:
    load(tmp_path, 'cars196')
  command = (
    f'tfds build cars196 --file_format=array_record --data_dir={tmp_path}'
  )
  assert command in str(e.value)
  with pytest.raises(UserError, match='name is empty'):
    load(tmp_path, '')


def test_another_file_format_is_refused(tmp_path):
  builder = prepare(tmp_path)
  info = builder.data_path / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(UserError, match='tfrecord'):
    load(tmp_path)


def test_a_set_of_another_kind_is_refused(tmp_path):
  features = {'image': MadeLeaves.features['image']}
  prepare(tmp_path, features=features)
  with pytest.raises(UserError, match='holds image; a classification set'):
    load(tmp_path)


def test_images_without_a_label_are_refused(tmp_path):
  def generate(self, split):
    for key, example in MadeLeaves._generate_examples(self, split):
      yield key, example | {'label': -1}

  prepare(tmp_path, _generate_examples=generate)
  with pytest.raises(UserError, match='2 images of .* have no label'):
    load(tmp_path)


def test_a_set_without_a_held_out_part_is_refused(tmp_path):
  prepare(tmp_path, splits=('train',))
  with pytest.raises(UserError, match='has the splits train; '):
    load(tmp_path)


def test_an_object_store_is_refused():
  with pytest.raises(UserError, match='config.data.root=gs://b/x must be a'):
    load('gs://b/x')
