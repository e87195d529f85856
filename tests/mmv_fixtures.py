"""Weights of MMV's networks made from their names, and reference numbers.

The recipe and the numbers are in the shared folder `fixtures/mmv`.
"""

import json
import zlib

import numpy as np
import tensorflow as tf

from tests import shared_data
from vatt_tf.checkpoints import mmv_names, plans, weight_sources


def arrays(name: str) -> dict[str, np.ndarray]:
  """Returns the arrays of a fixture, such as `s3d`."""
  with np.load(shared_data.path('fixtures', 'mmv', f'{name}.npz')) as file:
    return dict(file)


def description(name: str) -> dict:
  """Returns the description of a fixture, or a list of names."""
  path = shared_data.path('fixtures', 'mmv', f'{name}.json')
  return json.loads(path.read_text())


def names(listing: str) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of all arrays of `names_<listing>.json` by name."""
  lists = description(f'names_{listing}')
  return {
    root + name: tuple(shape)
    for root, part in (
      (mmv_names.PARAMS, lists['parameters']),
      (mmv_names.STATE, lists['statistics']),
    )
    for name, shape in part
  }


def value(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
  """Returns the array that the recipe makes from a name and a seed."""
  name = name.split('/', 1)[1]
  random = np.random.default_rng([seed, zlib.crc32(name.encode())])
  z = random.standard_normal(shape)
  fan_in = np.prod(shape[:-1])
  if name.endswith('/w'):
    z = z * np.sqrt(2 / fan_in)
    if name.endswith('/conv_2/w'):
      z *= 0.5
    elif name.endswith('/self_gating/w'):
      z *= 2
  elif name.endswith('/self_gating/b'):
    z = 1 + 0.5 * z
  elif name.endswith(('/b', '/offset', '/mean_ema/average')):
    z = 0.1 * z
  elif name.endswith('/scale'):
    z = 1 + 0.1 * z
  elif name.endswith('/var_ema/average'):
    z = (0.6 if '/S3D/' in name else 1.5) * np.exp(0.2 * z)
  elif name.endswith('/embeddings'):
    z = 0.2 * z
  else:
    raise ValueError(f'The recipe has no values for {name}.')
  return z.astype(np.float32)


def source(
  shapes: dict[str, tuple[int, ...]], seed: int
) -> weight_sources.Source:
  """Returns a source of the recipe's arrays, as of an opened npz file."""
  return weight_sources.Source(
    'recipe.npz', shapes, lambda name: value(name, shapes[name], seed), {}, ()
  )


def fill(layer: tf.Module, seed: int, backbone: str = 's3d', form=None) -> None:
  """Gives the variables of a built tower or head the recipe's values.

  Args:
    layer: Tower, or head in a scope `head`.
    seed: Seed of the recipe.
    backbone: `s3d` or `tsm`.
    form: Form of the head.
  """
  listings = {}
  for listing in (
    's3d',
    's3d_space_to_depth',
    'tsm_resnet50',
    'audio_resnet50',
    'heads_fac',
  ):
    for name, shape in names(listing).items():
      listings[name, int(np.prod(shape))] = shape
  for variable in layer.variables:
    target = plans.target_name(variable)
    if target.endswith('/num_updates'):
      continue
    name = mmv_names.source_of(target, backbone, form)
    shape = listings[name, variable.shape.num_elements()]
    variable.assign(value(name, shape, seed).reshape(variable.shape))


def assert_near(test, actual, expected, share, what='') -> None:
  """Asserts that no difference exceeds a share of the largest value."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  test.assertEqual(actual.shape, expected.shape, what)
  largest = np.abs(expected).max()
  difference = np.abs(actual - expected).max()
  test.assertLessEqual(difference, share * largest, what)


def assert_map(test, actual, key, expected, about, share) -> None:
  """Asserts that a map has the sample and the means of a fixture.

  Args:
    test: Test case.
    actual: Map, channels last.
    key: Name of the map in the fixture.
    expected: Arrays of the fixture.
    about: Descriptions of the arrays.
    share: See `assert_near`.
  """
  entry = about[f'{key}.sample']
  actual = np.reshape(np.float64(actual), entry['full_shape'])
  sample = actual.reshape(-1)[:: entry['stride']]
  assert_near(test, sample, expected[f'{key}.sample'], share, key)
  mean = actual.mean(tuple(range(actual.ndim - 1)))
  assert_near(test, mean, expected[f'{key}.mean'], share, key)
