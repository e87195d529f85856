"""The tables of the modalities, and of the pairs that a loss compares.

There are no other lists of them: all other code loops over these tables, or
over the modalities of a model.
"""

from collections.abc import Sequence
from typing import NamedTuple

from vatt_tf.core import feature_names as names

VIDEO = 'video'
AUDIO = 'audio'
TEXT = 'text'


class Modality(NamedTuple):
  """A kind of input that a tower encodes.

  Attributes:
    inputs: Keys of the feature dictionary that its tower may take.
    mask: Key of the mask that is true for rows that exist.
    feature: Key of the tower's pooled feature.
  """

  inputs: tuple[str, ...]
  mask: str
  feature: str


MODALITIES = {
  VIDEO: Modality((names.VIDEO,), names.VIDEO_MASK, names.VIDEO_FEATURE),
  AUDIO: Modality(
    (names.AUDIO, names.SPECTROGRAM), names.AUDIO_MASK, names.AUDIO_FEATURE
  ),
  TEXT: Modality((names.TEXT,), names.TEXT_MASK, names.TEXT_FEATURE),
}


class Pair(NamedTuple):
  """Two modalities whose embeddings meet in a common space.

  Attributes:
    first: Name of the first modality.
    second: Name of the second modality.
    first_embedding: Key of the first modality's embedding in the outputs.
    second_embedding: Key of the second modality's embedding in the outputs.
  """

  first: str
  second: str
  first_embedding: str
  second_embedding: str


VIDEO_AUDIO = 'video_audio'
VIDEO_TEXT = 'video_text'
AUDIO_TEXT = 'audio_text'

PAIRS = {
  VIDEO_AUDIO: Pair(VIDEO, AUDIO, names.VIDEO_VA, names.AUDIO_VA),
  VIDEO_TEXT: Pair(VIDEO, TEXT, names.VIDEO_VT, names.TEXT_VT),
  AUDIO_TEXT: Pair(AUDIO, TEXT, names.AUDIO_VT, names.TEXT_VT),
}


def of_input(name: str) -> str:
  """Returns the modality that an input belongs to.

  Args:
    name: Key of the feature dictionary, such as `spectrogram`.

  Returns:
    Name of a modality, such as `audio`.

  Raises:
    ValueError: No modality has this input.
  """
  for modality, row in MODALITIES.items():
    if name in row.inputs:
      return modality
  inputs = [key for row in MODALITIES.values() for key in row.inputs]
  raise ValueError(
    f'`input_name` must be one of {inputs}. Received: input_name={name!r}'
  )


def of_pairs(pairs: Sequence[str]) -> tuple[str, ...]:
  """Returns the modalities that some pairs compare, in the order of the table.

  Args:
    pairs: Names of pairs, keys of `PAIRS`.

  Returns:
    Names of modalities.

  Raises:
    ValueError: A name is not the name of a pair, or there is none.
  """
  check_pairs(pairs)
  used = {name for pair in pairs for name in PAIRS[pair][:2]}
  return tuple(modality for modality in MODALITIES if modality in used)


def check_pairs(pairs: Sequence[str]) -> None:
  """Raises ValueError unless there is a name, and all name pairs."""
  if not pairs or not set(pairs) <= set(PAIRS):
    raise ValueError(
      f'`pairs` must be some of {", ".join(PAIRS)}. Received: pairs={pairs}'
    )


def embeddings_of(modality: str) -> dict[str, str]:
  """Returns the embeddings of a modality.

  Args:
    modality: Name of a modality.

  Returns:
    Keys of the embeddings in the model's outputs, by the pair whose space they
    are in. Text has one embedding, in the space of video and text.
  """
  embeddings = {}
  for name, pair in PAIRS.items():
    keys = {
      pair.first: pair.first_embedding,
      pair.second: pair.second_embedding,
    }
    if modality in keys and keys[modality] not in embeddings.values():
      embeddings[name] = keys[modality]
  return embeddings
