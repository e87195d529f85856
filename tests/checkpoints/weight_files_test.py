"""Tests of files of named arrays: read as written, or refused clearly."""

import json
import os

from absl.testing import parameterized
import numpy as np
import safetensors.numpy
import tensorflow as tf

from vatt_tf.checkpoints import weight_files

_ARRAYS = {
  'a': np.arange(6, dtype=np.float32).reshape(2, 3),
  'b/c': np.array(2.5, np.float32),
}


class WeightFilesTest(parameterized.TestCase, tf.test.TestCase):
  def _path(self, *parts):
    return os.path.join(self.create_tempdir().full_path, *parts)

  def _check(self, opened):
    self.assertEqual(opened.shapes, {'a': (2, 3), 'b/c': ()})
    for name, value in _ARRAYS.items():
      found = opened.read(name)
      self.assertEqual(found.dtype, np.float32)
      self.assertAllEqual(found, value)

  def test_safetensors(self):
    folder = self._path('new')
    weight_files.write_model(folder, _ARRAYS, {'model_type': 'x'})
    self.assertCountEqual(
      os.listdir(folder), ['model.safetensors', 'config.json']
    )
    for path in (folder, os.path.join(folder, 'model.safetensors')):
      opened = weight_files.open_weights(path)
      self._check(opened)
      self.assertEqual(opened.config, {'model_type': 'x'})

  def test_transposed_arrays(self):
    folder = self._path()
    weight_files.write_model(folder, {'a': _ARRAYS['a'].T}, {})
    self.assertAllEqual(
      weight_files.open_weights(folder).read('a'), _ARRAYS['a'].T
    )

  def test_parts(self):
    folder = self._path()
    parts = {'a': 'part-1.safetensors', 'b/c': 'part-2.safetensors'}
    for name, part in parts.items():
      safetensors.numpy.save_file(
        {name: _ARRAYS[name]}, os.path.join(folder, part)
      )
    index = os.path.join(folder, 'model.safetensors.index.json')
    with open(index, 'w') as file:
      json.dump({'weight_map': parts}, file)
    self._check(weight_files.open_weights(folder))
    self._check(weight_files.open_weights(index))
    os.remove(os.path.join(folder, 'part-2.safetensors'))
    with self.assertRaisesRegex(ValueError, 'no file .*part-2.*all parts'):
      weight_files.open_weights(folder)

  def test_npz(self):
    path = self._path('x.npz')
    np.savez(path, **_ARRAYS)
    self._check(weight_files.open_weights(path))
    np.savez_compressed(path, **_ARRAYS)
    self._check(weight_files.open_weights(path))

  @parameterized.parameters(np.float16, tf.bfloat16.as_numpy_dtype)
  def test_half_precision(self, dtype):
    path = self._path('x.safetensors')
    safetensors.numpy.save_file(
      {name: value.astype(dtype) for name, value in _ARRAYS.items()}, path
    )
    self._check(weight_files.open_weights(path))

  def test_integers(self):
    path = self._path('x.safetensors')
    safetensors.numpy.save_file({'a': np.arange(3)}, path)
    opened = weight_files.open_weights(path)
    with self.assertRaisesRegex(ValueError, "'a' of .*floating .*int64"):
      opened.read('a')

  @parameterized.parameters('safetensors', 'npz')
  def test_half_downloaded(self, kind):
    path = self._path(f'x.{kind}')
    if kind == 'npz':
      np.savez(path, **_ARRAYS)
    else:
      safetensors.numpy.save_file(_ARRAYS, path)
    with open(path, 'rb') as file:
      content = file.read()
    for size in (0, 5, len(content) // 2, len(content) - 1):
      with open(path, 'wb') as file:
        file.write(content[:size])
      with self.assertRaisesRegex(
        ValueError, rf'no complete {kind} file \({size} bytes\).*Download'
      ):
        weight_files.open_weights(path)

  def test_errors(self):
    folder = self._path()
    with self.assertRaisesRegex(ValueError, 'must hold .*an empty folder'):
      weight_files.open_weights(folder)
    with self.assertRaisesRegex(ValueError, 'no file .*x.npz'):
      weight_files.open_weights(os.path.join(folder, 'x.npz'))
    path = os.path.join(folder, 'pytorch_model.bin')
    with open(path, 'w') as file:
      file.write('x')
    with self.assertRaisesRegex(ValueError, 'must hold .*pytorch_model.bin$'):
      weight_files.open_weights(folder)
    with self.assertRaisesRegex(ValueError, 'must be a .*pytorch_model.bin$'):
      weight_files.open_weights(path)
    path = os.path.join(folder, 'model.safetensors')
    with open(path, 'w') as file:
      file.write('version https://git-lfs.github.com/spec/v1\n')
    with self.assertRaisesRegex(ValueError, 'Git LFS.*git lfs pull'):
      weight_files.open_weights(folder)
    weight_files.write_model(folder, _ARRAYS, {})
    with open(os.path.join(folder, 'config.json'), 'w') as file:
      file.write('{')
    with self.assertRaisesRegex(ValueError, 'config.json cannot be read'):
      weight_files.open_weights(folder)


if __name__ == '__main__':
  tf.test.main()
