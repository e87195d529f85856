"""Sizes of a model by the names of gin parameters: compared, and written."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def check(
  theirs: Mapping[str, Any],
  ours: Mapping[str, Any],
  advice: Callable[[str], str],
) -> None:
  """Raises unless a checkpoint and a model have the same sizes.

  Args:
    theirs: Dictionary from names, gin parameters where there is one, to the
      checkpoint's values, in the order in which differences are named.
    ours: Likewise the model's, with at least the same names.
    advice: Function of the first name that differs; returns the sentences that
      end the message.

  Raises:
    ValueError: Naming the first that differs, and the others.
  """
  different = [name for name in theirs if theirs[name] != ours[name]]
  if different:
    name = different[0]
    raise ValueError(
      f'The sizes differ: `{name}` is {theirs[name]!r} in the checkpoint and '
      f'{ours[name]!r} in the model that the gin files describe'
      + (f'; so do {", ".join(different[1:])}' if different[1:] else '')
      + f'. {advice(name)}'
    )


def advise(bindings: Sequence[str]) -> Callable[[str], str]:
  """The advice of `check` that lists the gin bindings of a model that fits."""
  return lambda _: f'A model that fits has: {", ".join(bindings)}'


def bindings(sizes: Mapping[str, Any]) -> list[str]:
  """Gin bindings of sizes.

  Args:
    sizes: Dictionary from gin parameters or macros to values.

  Returns:
    List of strings.
  """
  return [f'{name} = {value!r}' for name, value in sizes.items()]
