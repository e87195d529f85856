"""Compares the sizes of models, and writes them as gin bindings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def check(
  theirs: Mapping[str, Any],
  ours: Mapping[str, Any],
  advice: Callable[[str], str],
) -> None:
  """Raises unless a checkpoint and a model have the same sizes.

  Args:
    theirs: Sizes of the checkpoint by name, a gin parameter where one exists,
      in the order in which differences are reported.
    ours: Sizes of the model, with at least the same names.
    advice: Function from the first name that differs to the end of the message.

  Raises:
    ValueError: A size differs; the message names all that differ.
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
  """Returns advice for `check` that lists the bindings of a fitting model."""
  return lambda _: f'A model that fits has: {", ".join(bindings)}'


def bindings(sizes: Mapping[str, Any]) -> list[str]:
  """Returns the gin bindings of sizes.

  Args:
    sizes: Values by gin parameter or macro.

  Returns:
    List of strings.
  """
  return [f'{name} = {value!r}' for name, value in sizes.items()]
