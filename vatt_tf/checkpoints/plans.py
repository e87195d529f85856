"""Which variable of a model gets which array of a file."""

from collections.abc import Callable
import dataclasses

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.checkpoints import ema


@dataclasses.dataclass(frozen=True)
class Assignment:
  """How one variable of the model gets its value.

  Attributes:
    target: `variable.name` without `:0`, as `target_name` gives it, such as
      `vatt/text_encoder/layer_0/attention/q/kernel`.
    sources: Names of the arrays that make it.
    how: Empty where the array is taken as it is; else what happens to it, in
      words: `transposed`, `kernel inflated from 16x16 to 4x16x16`.
    make: Takes `read`, a function from a source's name to its array, and
      returns the value. Called when its turn comes, and before that once with a
      `read` that gives zeros, to learn the shape.
  """

  target: str
  sources: tuple[str, ...]
  how: str
  make: Callable[[Callable[[str], np.ndarray]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Plan:
  """What becomes of every array of a source and every variable of a model.

  Attributes:
    assignments: List of `Assignment`.
    ignored: Dictionary, name of an array → why nothing takes it.
    missing: Dictionary, target → why it has no source. An error, unless parts
      are allowed.
    new: Dictionary, target → why it keeps its initial value, by design.
    notes: List of strings that the report shows. A `make` may append to it what
      it measured.
  """

  assignments: list[Assignment]
  ignored: dict[str, str] = dataclasses.field(default_factory=dict)
  missing: dict[str, str] = dataclasses.field(default_factory=dict)
  new: dict[str, str] = dataclasses.field(default_factory=dict)
  notes: list[str] = dataclasses.field(default_factory=list)


def copy(
  target: str,
  source: str,
  how: str = '',
  change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Assignment:
  """An `Assignment` of one array to one variable.

  Args:
    target: Name of the variable.
    source: Name of the array.
    how: Empty without `change`.
    change: Function from the array to the value, or None: as it is.

  Returns:
    `Assignment`.
  """

  def make(read):
    value = read(source)
    return value if change is None else change(value)

  return Assignment(target, (source,), how, make)


def target_name(variable: tf.Variable) -> str:
  """The name of a model's variable: `variable.name` without `:0`."""
  return ema.weight_name(variable.name)


def target_variables(model: tf_keras.Model) -> dict[str, tf.Variable]:
  """The variables of a model that a plan must account for.

  Args:
    model: A built model or layer.

  Returns:
    Dictionary from `target_name` to the variable.

  Raises:
    ValueError: Two variables have one name.
  """
  found = {}
  for variable in model.variables:
    name = target_name(variable)
    if name in found:
      raise ValueError(
        f'Two variables of the model are named {name}. Name its layers apart.'
      )
    found[name] = variable
  return found
