"""Builds VATT from the numbers that a table of a paper would list."""

from typing import NamedTuple

import gin

from vatt_tf.input_pipeline import text
from vatt_tf.layers import text_embedding, transformer_encoder
from vatt_tf.models import similarity_scale, vatt

# Sound is far from the unit variance that linear maps are initialised for:
# speech and music have a root mean square of about 0.1, and spectrograms that
# are normalised to [0, 1] one of about 0.5.
_WAVEFORM_RMS = 0.1
_SPECTROGRAM_RMS = 0.5
_MODALITIES = ('video', 'audio', 'text')
# Arguments of the embedding and of the encoder.
_VIDEO_FORMS = {
  'release': ({}, {}),
  'vit': (
    {'position_form': 'full', 'use_position_norm': False},
    {'epsilon': 1e-12},
  ),
}


@gin.register
class Size(NamedTuple):
  """Size of an encoder (paper, table 1 of the appendix).

  Small 6 / 512 / 2048 / 8, Base 12 / 768 / 3072 / 12, Medium 12 / 1024 / 4096
  / 16, Large 24 / 1024 / 4096 / 16.

  Attributes:
    num_layers: int.
    d_model: int, width of the tokens.
    d_ff: int, inner width of the feed-forward.
    num_heads: int.
    d_kv: int, width of a head.
  """

  num_layers: int
  d_model: int
  d_ff: int
  num_heads: int
  d_kv: int = 64


def pair(value):
  """A number twice, or a list or tuple of two as a tuple."""
  return tuple(value) if isinstance(value, (list, tuple)) else (value, value)


def patch_arguments(size, patch_size, input_size, **others):
  """Arguments of a tower's `PatchEmbedding`.

  Args:
    size: `Size` of the encoder.
    patch_size: tuple of ints.
    input_size: tuple of ints, the input for which the position tables are made;
      what is left over of a patch counts as one.
    **others: more of its arguments.

  Returns:
    A dictionary.
  """
  return {
    'd_model': size.d_model,
    'patch_size': patch_size,
    'table_shape': tuple(
      max(1, -(-whole // part)) for whole, part in zip(input_size, patch_size)
    ),
    **others,
  }


def audio_arguments(
  size,
  form,
  patch_size,
  num_audio_samples,
  spectrogram_patch_size,
  num_spectrogram_frames,
  num_mel_bins,
  **others,
):
  """Arguments of an audio tower's `PatchEmbedding`, see `build_model`."""
  if form == 'spectrogram':
    return patch_arguments(
      size,
      tuple(spectrogram_patch_size),
      (num_spectrogram_frames, num_mel_bins),
      **others,
      use_padding=True,
      input_rms=_SPECTROGRAM_RMS,
    )
  return patch_arguments(
    size,
    (patch_size,),
    (num_audio_samples,),
    **others,
    input_rms=_WAVEFORM_RMS,
  )


@gin.register
def build_model(
  size=None,
  video_size=None,
  audio_size=None,
  text_size=None,
  video_patch_size=(4, 16, 16),
  audio_form='waveform',
  audio_patch_size=128,
  spectrogram_patch_size=(16, 5),
  num_frames=32,
  frame_size=224,
  num_audio_samples=153600,
  num_spectrogram_frames=150,
  num_mel_bins=80,
  max_words=16,
  vocabulary_size=65536,
  d_embedding=300,
  word_vectors=None,
  vocabulary=None,
  is_table_frozen=False,
  video_form='release',
  text_form='release',
  num_relative_buckets=None,
  max_relative_distance=None,
  d_post_projection=1024,
  position_interpolation='exact',
  drop_token_rate=0.5,
  dropout_rate=0.1,
  common_space='fine_and_coarse',
  d_va=512,
  d_vt=256,
  video_audio_weight=1.0,
  video_text_weight=1.0,
  audio_text_weight=0.0,
  use_remat=False,
  learned_similarity=None,
  temperature=0.07,
):
  """Builds a VATT with all its weights.

  `size` alone gives the modality-agnostic model, whose one encoder all
  modalities share; `video_size`, `audio_size` and `text_size` without `size`
  the modality-specific one. Towers that no term uses are not built.

  The sizes of inputs are those for which the position tables are made. The
  model takes other sizes too: larger ones read the tables interpolated. Keep
  them when a checkpoint is used at another resolution.

  Args:
    size: `Size` of the shared encoder, or None.
    video_size: `Size` of the video encoder, or None.
    audio_size: `Size` of the audio encoder, or None.
    text_size: `Size` of the text encoder, or None.
    video_patch_size: three ints, frames x height x width of a patch.
    audio_form: `waveform` or `spectrogram`.
    audio_patch_size: int, samples of a patch of the waveform.
    spectrogram_patch_size: two ints, frames x bins of a patch.
    num_frames: int, video frames.
    frame_size: int, or height and width.
    num_audio_samples: int.
    num_spectrogram_frames: int.
    num_mel_bins: int.
    max_words: int, token ids of a caption.
    vocabulary_size: int, rows of the word table.
    d_embedding: int, width of the word table; None: as wide as the encoder,
      without a map between (T5's own).
    word_vectors: path of a word-vector file in text format that fills the
      table, or None. Words that it does not have keep their initial values.
    vocabulary: path of the vocabulary file (word-level), for `word_vectors`.
    is_table_frozen: bool; True needs a table filled from word vectors or a
      checkpoint before training.
    video_form: `release`, or `vit` for the modality-specific model's video
      tower in the form of an image model: one position table for all patches,
      no norm of positions, norms with an epsilon of 1e-12.
    text_form: `release`, `t5_v1_0` or `t5_v1_1`: form of the modality-specific
      model's text encoder.
    num_relative_buckets: int, buckets of that encoder's relative positions;
      None: 32.
    max_relative_distance: int, of these buckets; None: 64 of the form
      `release`, 128 of T5's.
    d_post_projection: int, width of the features of the modality-agnostic
      model; None: no Dense + GeLU behind the encoder.
    position_interpolation: `exact` or `release`: how inputs larger than the
      position tables read them (see `PositionEmbedding`).
    drop_token_rate: float in [0, 1), share of the video and audio tokens
      dropped in training.
    dropout_rate: float in [0, 1).
    common_space: `fine_and_coarse`, `shared` or `disjoint`.
    d_va: int, width of the video-audio space.
    d_vt: int, width of the video-text space.
    video_audio_weight: float, weight of the term that compares video and
      audio; 0: there is none.
    video_text_weight: float, likewise.
    audio_text_weight: float, likewise.
    use_remat: bool, trade time for memory in training (see
      `TransformerEncoder`).
    learned_similarity: None, `temperature` or `temperature_and_bias`: the
      scalars that the model learns for each pair that a term compares (see
      `SimilarityScale`).
    temperature: float, where a learned temperature of the kind `temperature`
      starts.

  Returns:
    A built `vatt.VATT`.

  Raises:
    ValueError: the sizes given do not make a model, or an argument is out of
      its range.

  Example:
    >>> model = build_model(Size(1, 8, 16, 2, d_kv=4), vocabulary_size=100)
    >>> model.modalities
    ('video', 'audio', 'text')
  """
  terms = {
    'use_video_audio': video_audio_weight > 0,
    'use_video_text': video_text_weight > 0,
    'use_audio_text': audio_text_weight > 0,
  }
  used = {
    'video': terms['use_video_audio'] or terms['use_video_text'],
    'audio': terms['use_video_audio'] or terms['use_audio_text'],
    'text': terms['use_video_text'] or terms['use_audio_text'],
  }
  sizes = dict(zip(_MODALITIES, (video_size, audio_size, text_size)))
  _check_sizes(size, sizes, used)
  is_agnostic = size is not None
  if video_form not in _VIDEO_FORMS:
    raise ValueError(
      f'`video_form` must be one of {sorted(_VIDEO_FORMS)}. '
      f'Received: video_form={video_form!r}'
    )
  if is_agnostic and video_form != 'release':
    raise ValueError(
      "`video_form` must be 'release' in the modality-agnostic model, whose "
      f'encoder is not of one modality. Received: video_form={video_form!r}'
    )

  def encoder_arguments(numbers, **others):
    return {
      **numbers._asdict(),
      'dropout_rate': dropout_rate,
      'use_remat': use_remat,
      **others,
    }

  of_patches = {
    'use_pre_projection': is_agnostic,
    'position_interpolation': position_interpolation,
    'drop_token_rate': drop_token_rate,
    'dropout_rate': dropout_rate,
  }
  parts = {}
  for modality in _MODALITIES:
    if not used[modality]:
      continue
    numbers = size or sizes[modality]
    others = {}
    if modality == 'video':
      form, others = _VIDEO_FORMS[video_form]
      embedding = patch_arguments(
        numbers,
        tuple(video_patch_size),
        (num_frames, *pair(frame_size)),
        **of_patches,
        **form,
      )
    elif modality == 'audio':
      embedding = audio_arguments(
        numbers,
        audio_form,
        audio_patch_size,
        num_audio_samples,
        spectrogram_patch_size,
        num_spectrogram_frames,
        num_mel_bins,
        **of_patches,
      )
    else:
      embedding = {
        'd_model': numbers.d_model,
        'vocabulary_size': vocabulary_size,
        'd_embedding': d_embedding,
        'num_positions': max_words if is_agnostic else None,
        'is_frozen': is_table_frozen,
        'position_interpolation': position_interpolation,
        'dropout_rate': dropout_rate,
      }
      others = transformer_encoder.t5_arguments(text_form)
      for name, value in (
        ('num_relative_buckets', num_relative_buckets),
        ('max_relative_distance', max_relative_distance),
      ):
        if value is not None:
          others[name] = value
    parts[modality] = {'embedding': embedding}
    if not is_agnostic:
      parts[modality]['encoder'] = encoder_arguments(numbers, **others)

  similarity = None
  if learned_similarity is not None:
    similarity = {
      'pairs': tuple(
        pair for pair in similarity_scale.PAIRS if terms[f'use_{pair}']
      ),
      'kind': learned_similarity,
      'temperature': temperature,
    }
  model = vatt.VATT(
    head={'form': common_space, 'd_va': d_va, 'd_vt': d_vt, **terms},
    encoder=encoder_arguments(size) if is_agnostic else None,
    audio_form=audio_form,
    d_post_projection=d_post_projection if is_agnostic else None,
    similarity=similarity,
    **parts,
  )
  model.build()
  if word_vectors and used['text']:
    if not vocabulary:
      raise ValueError(
        '`word_vectors` needs `vocabulary`, the file with the words of the '
        f'table. Received: word_vectors={word_vectors!r}, vocabulary=None'
      )
    table = model.text_embedding.table
    table.fill(
      *text_embedding.read_word_vectors(
        word_vectors, text.WordTokenizer(vocabulary).words, table.d_embedding
      )
    )
  return model


def _check_sizes(size, sizes, used):
  """Raises unless the sizes make one of the two kinds of model."""
  given = [modality for modality in _MODALITIES if sizes[modality] is not None]
  if size is not None and given:
    raise ValueError(
      'Give either `size`, for the modality-agnostic model, or '
      '`video_size`, `audio_size` and `text_size`. Received: `size` and '
      + ', '.join(f'`{modality}_size`' for modality in given)
    )
  missing = [m for m in _MODALITIES if used[m] and m not in given]
  if size is None and missing:
    raise ValueError(
      'Give `size`, for the modality-agnostic model, or the sizes of all '
      'modalities that a term uses; a model file such as '
      'gin/models/ma_medium.gin has them. Missing: '
      + ', '.join(f'`{modality}_size`' for modality in missing)
    )
