"""Models for tests, put together from numbers as gin files do it."""

from vatt_tf.core import modalities
from vatt_tf.layers import projection_head
from vatt_tf.models import (
  classification,
  patch_tower,
  similarity_scale,
  sizes,
  text_tower,
  transformer_tower,
  vatt,
)

# Arguments of the towers, by the names of those that tests give.
_OF_VIDEO = {'video_patch_size': 'patch_size', 'video_form': 'form'}
_OF_TEXT = {'text_form': 'form'} | {
  name: name
  for name in (
    'max_words',
    'vocabulary_size',
    'd_embedding',
    'word_vectors',
    'vocabulary',
    'is_table_frozen',
    'num_relative_buckets',
    'max_relative_distance',
  )
}
_OF_PATCHES = {'drop_token_rate': 'drop_token_rate'}
_OF_ALL = {
  name: name for name in ('position_interpolation', 'dropout_rate', 'use_remat')
}
_OF_SHARED = {
  name: name for name in ('d_post_projection', 'dropout_rate', 'use_remat')
}
_OF_HEAD = {'common_space': 'form', 'd_va': 'd_va', 'd_vt': 'd_vt'}


def _pick(arguments, names):
  return {
    ours: arguments[theirs]
    for theirs, ours in names.items()
    if theirs in arguments
  }


def _video(arguments, **others):
  return patch_tower.PatchTower(
    'video',
    input_size=(
      arguments.get('num_frames', 32),
      arguments.get('frame_size', 224),
    ),
    **_pick(arguments, _OF_VIDEO | _OF_PATCHES | _OF_ALL),
    **others,
  )


def _audio(arguments, **others):
  if arguments.get('audio_form', 'waveform') == 'spectrogram':
    return patch_tower.PatchTower(
      'spectrogram',
      patch_size=arguments.get('spectrogram_patch_size'),
      input_size=(
        arguments.get('num_spectrogram_frames', 150),
        arguments.get('num_mel_bins', 80),
      ),
      **_pick(arguments, _OF_PATCHES | _OF_ALL),
      **others,
    )
  return patch_tower.PatchTower(
    'audio',
    patch_size=arguments.get('audio_patch_size'),
    input_size=arguments.get('num_audio_samples', 153600),
    **_pick(arguments, _OF_PATCHES | _OF_ALL),
    **others,
  )


def _text(arguments, **others):
  return text_tower.TextTower(**_pick(arguments, _OF_TEXT | _OF_ALL), **others)


_TOWERS = {'video': _video, 'audio': _audio, 'text': _text}


def build_vatt(
  size: sizes.Size | None = None,
  pairs: tuple[str, ...] = (modalities.VIDEO_AUDIO, modalities.VIDEO_TEXT),
  learned_similarity: str | None = None,
  temperature: float = 0.07,
  similarity: similarity_scale.SimilarityScale | None = None,
  use_token_head: bool = False,
  **arguments,
) -> vatt.VATT:
  """Builds a VATT.

  Args:
    size: Of the shared encoder; None: `video_size` and its like are given.
    pairs: As of `VATT`.
    learned_similarity: Kind of the `SimilarityScale`, or None.
    temperature: Of it.
    similarity: Or as of `VATT`.
    use_token_head: As of `VATT`.
    **arguments: `video_size`, `audio_size`, `text_size`; of the towers and the
      head, see the tables above; and what the position tables are made for:
      `num_frames`, `frame_size`, `num_audio_samples`,
      `num_spectrogram_frames`, `num_mel_bins`; `audio_form`.

  Returns:
    The built model.
  """
  if size is not None:
    towers = transformer_tower.share_encoder(
      {
        modality: lambda make=make, **others: make(arguments, **others)
        for modality, make in _TOWERS.items()
      },
      size,
      **_pick(arguments, _OF_SHARED),
    )
  else:
    towers = {
      modality: make(arguments, size=arguments[f'{modality}_size'])
      for modality, make in _TOWERS.items()
      if f'{modality}_size' in arguments
    }
  if learned_similarity is not None:
    similarity = similarity_scale.SimilarityScale(
      pairs, learned_similarity, temperature, name='similarity_scale'
    )

  def head(**others):
    return projection_head.ProjectionHead(
      **_pick(arguments, _OF_HEAD), **others
    )

  model = vatt.VATT(towers, head, pairs, similarity, use_token_head)
  model.build()
  return model


def build_classifier(
  modality: str,
  num_classes: int,
  size: sizes.Size,
  is_agnostic: bool = False,
  is_multi_label: bool = False,
  classifier_dropout_rate: float = 0.5,
  patch_size: tuple[int, ...] | None = None,
  **arguments,
) -> classification.Classifier:
  """Builds a classifier.

  Args:
    modality: `video` or `audio`.
    num_classes: As of `Classifier`.
    size: Of the encoder.
    is_agnostic: Whether the tower is one of the modality-agnostic model.
    is_multi_label: As of `Classifier`.
    classifier_dropout_rate: Likewise.
    patch_size: Of the tower.
    **arguments: As of `build_vatt`.

  Returns:
    The built model.
  """
  name = f'{modality}_patch_size'
  if arguments.get('audio_form') == 'spectrogram':
    name = 'spectrogram_patch_size'
  arguments[name] = patch_size

  def make(**others):
    return _TOWERS[modality](arguments, **others)

  if is_agnostic:
    tower = transformer_tower.share_encoder(
      {modality: make}, size, **_pick(arguments, _OF_SHARED)
    )[modality]
  else:
    tower = make(size=size)
  model = classification.Classifier(
    tower, num_classes, is_multi_label, classifier_dropout_rate
  )
  model.build()
  return model
