"""The spline through a position table, with the rounding of the released code.

The release solves for it in float32. The linear system is badly conditioned,
and the error depends on the order of each sum and on the last bit of each
coefficient: one different bit changes the result as much as float64 does.
Everything here is therefore computed in a fixed order, which gives the values
of the release on every CPU and with every TensorFlow.
"""

import math

import numpy as np
import tensorflow as tf

# With more rows than this, the released spline consists of rounding errors.
_MAX_ORDERED_ROWS = 64

# The release computes powers in vectors of this many numbers. The remaining
# numbers at the end are computed one by one, and rounded to the nearest.
_VECTOR = 8

# log2(1 + x) = x (C0 + x (C1 + x (C2 + x (C3 + x P(x))))). Each C is a sum of
# two float32, value and correction; P starts with its constant.
_LOG_TERMS = (
  (1.44269502163, 2.01711713999e-08),
  (-0.721347510815, -4.84483164698e-09),
  (0.480897903442, -1.44861207474e-08),
  (-0.360674142838, -6.13283912543e-09),
)
_LOG_REST = (
  0.2885761857032,
  -0.2404672354459,
  0.2050433009862,
  -0.1789081543684,
  0.1720575392246,
  -0.1690667718648,
  9.703654795885e-2,
)
# 2^x = 1 + x (C + x P(x)).
_EXP_TERM = (0.6931471825, 2.36836577e-08)
_EXP_REST = (
  0.2402264923,
  5.550328270e-2,
  9.618283249e-3,
  1.340007293e-3,
  1.539513905e-4,
)


def read(table: np.ndarray, num_positions: int) -> np.ndarray:
  """Reads a position table at more positions, rounding as the release does.

  The spline is the same as in `position_embedding.interpolation_matrix`, but
  solved in float32 for the values of the table.

  Args:
    table: (rows, D) float32: position table, of at least two rows.
    num_positions: Number of positions, more than the rows.

  Returns:
    (num_positions, D) float32.
  """
  rows = table.shape[0]
  table_points, points = (
    (np.arange(n, dtype=np.float32) / np.float32(n))[:, None]
    for n in (rows, num_positions)
  )

  def basis(x, centres):
    """|x - centre|^3 (points, centres), and the affine part (points, 2)."""
    square = np.square(x) - 2 * (x * centres.T) + np.square(centres).T
    affine = np.concatenate([x, np.ones_like(x)], 1)
    return _power(np.maximum(square, np.float32(1e-10)), 1.5), affine

  radial, affine = basis(table_points, table_points)
  system = np.block([[radial, affine], [affine.T, np.zeros([2, 2])]])
  values = tf.concat([table, tf.zeros([2, table.shape[1]])], 0)
  solution = tf.linalg.solve(
    tf.constant(system, tf.float32), values
  )  # (rows + 2, D)
  radial, affine = (tf.constant(part) for part in basis(points, table_points))
  multiply = tf.matmul
  if rows <= _MAX_ORDERED_ROWS:
    multiply = _multiply_in_order
  return multiply(radial, solution[:-2]) + multiply(affine, solution[-2:])


def _multiply_in_order(a, b):
  """Matrix product in float32, the same on every CPU.

  Each product is added to the previous sum with one rounding, as `tf.matmul`
  does on CPUs with AVX-512, but not on others.
  """
  total = tf.zeros([a.shape[0], b.shape[1]])
  for i in range(a.shape[1]):
    # The product of two float32 is exact in float64.
    product = tf.cast(a[:, i : i + 1], tf.float64) * tf.cast(
      b[i : i + 1], tf.float64
    )
    total = tf.cast(tf.cast(total, tf.float64) + product, tf.float32)
  return total


# Pairs represent numbers as sums of two float32: (value, correction).


def _sum(a, b):
  """The sum of float32 numbers with |a| >= |b|, as a pair."""
  total = a + b
  return total, b - (total - a)


def _product(a, b):
  """The product of float32 numbers, as a pair."""
  product = a * b
  exact = a.astype(np.float64) * b.astype(np.float64)
  return product, (exact - product).astype(np.float32)


def _add(a, b):
  """The sum of pairs with |a| >= |b|, as a pair."""
  total, correction = _sum(a[0], b[0])
  return _sum(total, (b[1] + correction) + a[1])


def _scale(pair, factor):
  """The product of a pair and a float32 number, as a pair."""
  product, correction = _product(pair[0], factor)
  product, sum_correction = _sum(product, pair[1] * factor)
  return _sum(product, sum_correction + correction)


def _polynomial(coefficients, x):
  """A polynomial in float32, with even and odd terms summed separately."""
  square = x * x
  parts = []
  for terms in (coefficients[::2], coefficients[1::2]):
    value = np.full_like(x, terms[-1])
    for term in terms[-2::-1]:
      value = value * square + np.float32(term)
    parts.append(value)
  even, odd = parts
  return odd * x + even


def _log2(x):
  """The log2 of float32 numbers in [sqrt(1/2), sqrt(2)], as a pair."""
  x = x - np.float32(1)
  pair = _product(_polynomial(_LOG_REST, x), x)
  for term in _LOG_TERMS[::-1]:
    sum_of_terms = _add([np.full_like(x, part) for part in term], pair)
    pair = _scale(sum_of_terms, x)
  return pair


def _exp2(x):
  """2^x of float32 numbers in [-1/2, 1/2]."""
  pair = _product(_polynomial(_EXP_REST, x), x)
  pair = _add([np.full_like(x, part) for part in _EXP_TERM], pair)
  larger, correction = _scale(pair, x)
  value, sum_correction = _sum(np.ones_like(x), larger)
  return value + (correction + sum_correction)


def _power(x, exponent):
  """x^exponent with the rounding of TensorFlow 2.17 on CPUs.

  Args:
    x: Float32 array of positive numbers.
    exponent: float.

  Returns:
    A float32 array like `x`.
  """
  flat = x.ravel()
  mantissa, exponents = np.frexp(flat)
  is_low = mantissa < np.float32(math.sqrt(0.5))
  mantissa = np.where(is_low, 2 * mantissa, mantissa)
  exponents = np.where(is_low, exponents - 1, exponents).astype(np.float32)
  factor = np.full_like(flat, exponent)
  larger, correction = _add(
    _product(exponents, factor), _scale(_log2(mantissa), factor)
  )
  exponents = np.round(larger)
  part = larger - exponents + correction
  rounded = np.round(part)
  powers = np.ldexp(
    _exp2(part - rounded), (exponents + rounded).astype(np.int32)
  )
  last = flat.size // _VECTOR * _VECTOR
  powers[last:] = flat[last:].astype(np.float64) ** exponent
  return powers.reshape(x.shape)
