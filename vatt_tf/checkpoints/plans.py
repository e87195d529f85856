"""Plans that map the arrays of a file to the variables of a model."""

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
    target: Name of the variable, as `target_name` returns it, such as
      `vatt/text_encoder/layer_0/attention/q/kernel`.
    sources: Names of the arrays that the value is computed from.
    how: Description of the change to the array, such as `transposed` or `kernel
      inflated from 16x16 to 4x16x16`; empty without one.
    make: Function from `read`, which maps a source's name to its array, to the
      value. It is called once with a `read` that returns zeros, to get the
      shape, and later for the value.
  """

  target: str
  sources: tuple[str, ...]
  how: str
  make: Callable[[Callable[[str], np.ndarray]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Plan:
  """How every array of a source and every variable of a model is mapped.

  Attributes:
    assignments: Assignments of arrays to variables.
    ignored: Name of each unused array → why it is not used.
    missing: Target → why it has no source. This is an error, unless a partial
      import is allowed.
    new: Target → why it keeps its initial value, by design.
    notes: Lines for the report. A `make` may append its measurements.
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
  """Returns an `Assignment` of one array to one variable.

  Args:
    target: Name of the variable.
    source: Name of the array.
    how: Description of the change; empty without `change`.
    change: Function from the array to the value. None means no change.

  Returns:
    `Assignment`.
  """

  def make(read):
    value = read(source)
    return value if change is None else change(value)

  return Assignment(target, (source,), how, make)


def target_name(variable: tf.Variable) -> str:
  """Returns the name of a model's variable, without `:0`."""
  return ema.weight_name(variable.name)


def target_variables(model: tf_keras.Model) -> dict[str, tf.Variable]:
  """Returns the variables of a model that a plan must account for.

  Args:
    model: A built model or layer.

  Returns:
    Dictionary from `target_name` to the variable.

  Raises:
    ValueError: Two variables have one name.
  """
  variables = {}
  for variable in model.variables:
    name = target_name(variable)
    if name in variables:
      raise ValueError(
        f'Two variables of the model are named {name}. Give its layers '
        'different names.'
      )
    variables[name] = variable
  return variables
