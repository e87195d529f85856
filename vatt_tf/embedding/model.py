"""An exported model that embeds clips, by its own signatures.

Of a clip that is longer or shorter than what the model takes, the frames and
the samples are chosen as evaluation chooses them, with the functions of the
input pipeline, so that a clip has the embedding that evaluation gives it.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import hashlib
import os
import re

import gin
import numpy as np
import tensorflow as tf

from vatt_tf.core import file_utils
from vatt_tf.embedding import table
from vatt_tf.export import signatures
from vatt_tf.input_pipeline import audio as audio_lib
from vatt_tf.input_pipeline import audio_config, video_config
from vatt_tf.input_pipeline import video as video_lib
from vatt_tf.input_pipeline.records import schema

_SIGNATURES = {
  table.VIDEO: 'embed_video_jpeg',
  table.AUDIO: 'embed_audio',
  table.CAPTION: 'embed_text',
}
_GRAPH = 'saved_model.pb'
# What stands in `assets.extra` beside a model; it says what the model takes.
_CONFIG = os.path.join('assets.extra', 'config.gin')
# Of what an operation said.
_PREFIX = re.compile(r'^(\(\d+\) )?(INVALID_ARGUMENT: )?\s*')
_ASSERTION = re.compile(r'^assertion failed: ')
# Of the digest, as hexadecimal digits.
_DIGEST_LENGTH = 12
# Beyond these a rate is a mistake; the times of frames are whole µs.
_MIN_FRAME_RATE, _MAX_FRAME_RATE = 1e-3, 1e6
_MIN_SAMPLE_RATE, _MAX_SAMPLE_RATE = 1_000, 768_000


def find_version(path: str, name: str = '') -> str:
  """The folder of a version of a model.

  Args:
    path: It, or a folder of versions.
    name: What `version_name` gives. Of a folder of versions the one of this
      number is taken, which may be another model; where it is not there, the
      newest.

  Raises:
    ValueError: There is none.
    OSError: What holds it cannot be read or reached.
  """
  if file_utils.exists(os.path.join(path, _GRAPH)):
    return path.rstrip('/')
  versions = [
    name
    for name in file_utils.list_folder(path)
    if name.isdecimal() and file_utils.exists(os.path.join(path, name, _GRAPH))
  ]
  if not versions:
    raise ValueError(
      '`saved_model` must be a folder of versions of an exported model, or one '
      f'of them. Received: saved_model={path!r}. `python -m '
      'vatt_tf.export_saved_model` makes one.'
    )
  number = name.rpartition('-')[0]
  newest = max(versions, key=int)
  return os.path.join(path, number if number in versions else newest)


def find_config(version: str) -> str:
  """Path of the gin file beside a version; it says what the model takes.

  Raises:
    ValueError: There is none.
  """
  path = os.path.join(version, _CONFIG)
  if not tf.io.gfile.exists(path):
    raise ValueError(
      f'`saved_model` must have {_CONFIG} in it, which says how many frames '
      'and samples it takes. Received: saved_model='
      f'{version!r}. Export the checkpoint with `python -m '
      'vatt_tf.export_saved_model`.'
    )
  return path


def version_name(version: str) -> str:
  """The number of a version and a digest of the model: `3-0a1b2c3d4e5f`.

  The digest is that of the graph, the weights, the assets and the
  configuration, so that models that differ have different names.

  Args:
    version: Folder of the version.
  """
  paths = [os.path.join(version, name) for name in (_GRAPH, _CONFIG)]
  for part in ('variables', 'assets'):
    folder = os.path.join(version, part)
    if tf.io.gfile.isdir(folder):
      paths += [
        os.path.join(folder, name) for name in tf.io.gfile.listdir(folder)
      ]
  digest = hashlib.sha256()
  for path in sorted(paths):
    digest.update(os.path.relpath(path, version).encode())
    with tf.io.gfile.GFile(path, 'rb') as file:
      digest.update(str(file.size()).encode())
      while block := file.read(1 << 24):
        digest.update(block)
  number = os.path.basename(version)
  return f'{number}-{digest.hexdigest()[:_DIGEST_LENGTH]}'


@dataclasses.dataclass(frozen=True)
class Form:
  """What a model takes of a clip: the configurations of evaluation.

  Attributes:
    video: `VideoConfig`, or None for a model without video.
    audio: `AudioConfig`, or None for a model without sound.
  """

  video: video_config.VideoConfig | None = None
  audio: audio_config.AudioConfig | None = None

  @classmethod
  def configured(cls) -> 'Form':
    """That of the configuration which was parsed last, in the scope `eval`."""
    with gin.config_scope('eval'):
      return cls(
        gin.get_configurable(video_config.VideoConfig)(),
        gin.get_configurable(audio_config.AudioConfig)(),
      )

  @property
  def seconds(self) -> float:
    """What the model takes, 0 where it has neither."""
    configs = [one for one in (self.video, self.audio) if one is not None]
    return max((config.seconds for config in configs), default=0.0)


@dataclasses.dataclass
class Embedded:
  """What became of a clip.

  Attributes:
    rows: Dictionaries with `table.COLUMNS`.
    faults: Why frames or sound have no row.
    notes: Why captions have none.
    num_of: What has rows, by modality.
  """

  rows: list[dict] = dataclasses.field(default_factory=list)
  faults: list[str] = dataclasses.field(default_factory=list)
  notes: list[str] = dataclasses.field(default_factory=list)
  num_of: dict[str, int] = dataclasses.field(
    default_factory=lambda: dict.fromkeys(table.MODALITIES, 0)
  )


class Embedder:
  """Embeds clips.

  Args:
    version: Folder of a version of a model.
    form: The configurations of evaluation.
    modalities: Of `table.MODALITIES`; by default all that the model has.

  Attributes:
    version: The folder, as an absolute path.
    name: Of the version (`version_name`).
    form: What the model takes: without the modalities that it does not have.
    modalities: Tuple of strings.
    dimensions: From the spaces of these modalities to their dimension.

  Raises:
    ValueError: The model has no embeddings, or not of these modalities.
  """

  def __init__(self, version: str, form: Form, modalities: Sequence[str] = ()):
    is_remote = file_utils.is_remote(version)
    self.version = version if is_remote else os.path.abspath(version)
    self.name = version_name(version)
    # Kept: its signatures do not keep their variables.
    self._loaded = tf.saved_model.load(file_utils.literal_path(version))
    self._functions = {
      modality: self._loaded.signatures[name]
      for modality, name in _SIGNATURES.items()
      if name in self._loaded.signatures
    }
    if not self._functions:
      raise ValueError(
        '`saved_model` must embed: have a signature '
        f'{", ".join(_SIGNATURES.values())}. Received: saved_model='
        f'{version!r}, with {", ".join(self._loaded.signatures)}'
      )
    self.form = Form(
      form.video if table.VIDEO in self._functions else None,
      form.audio if table.AUDIO in self._functions else None,
    )
    for modality in modalities:
      if modality not in self._functions:
        raise ValueError(
          '`modalities` must be among those of the model, '
          f'{", ".join(self._functions)}. Received: modalities='
          f'{",".join(modalities)}'
        )
    self.modalities = tuple(
      modality
      for modality in self._functions
      if not modalities or modality in modalities
    )
    self.dimensions = {}
    for modality in self.modalities:
      outputs = self._functions[modality].structured_outputs
      for space in table.SPACES:
        if space in outputs:
          self.dimensions[space] = int(outputs[space].shape[-1])
    self._is_looped = (
      self.form.video is None or self.form.video.short_clip == video_config.LOOP
    )
    self._slice = tf.function(
      self._slice_waveform,
      input_signature=[
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.int64),
        tf.TensorSpec([], tf.int64),
      ],
    )

  def _slice_waveform(self, waveform, rate, offset, duration):
    return audio_lib.slice_waveform(
      waveform, rate, offset, duration, self.form.audio, self._is_looped
    )

  def _choose(
    self, clip: schema.Clip, faults: Mapping[str, str]
  ) -> tuple[list[bytes] | None, np.ndarray | None]:
    """The frames and samples that the model takes: the middle of the clip."""
    use_video, use_audio = (
      modality in self.modalities and has_it and modality not in faults
      for modality, has_it in (
        (table.VIDEO, bool(clip.frames)),
        (table.AUDIO, clip.waveform is not None),
      )
    )
    times, duration = np.zeros([0], np.int64), 0
    if use_video:
      times = np.asarray(_frame_times(clip), np.int64)
      period = int(1e6 / clip.frame_rate) if clip.frame_rate else 0
      duration = int(times[-1]) + period
    rate = 0
    if use_audio:
      rate = round(clip.sample_rate)
      duration = max(duration, int(clip.waveform.size / rate * 1e6))
    room = max(duration - round(self.form.seconds * 1e6), 0)
    offset = int(0.5 * room)
    # The sound starts with a frame.
    place = int(np.searchsorted(times, offset, side='right')) - 1
    offset = int(times[place]) if place >= 0 else offset
    frames = samples = None
    if use_video:
      config = self.form.video
      indices = video_lib.sample_indices(
        tf.constant(times),
        tf.constant(offset, tf.int64),
        tf.constant(duration, tf.int64),
        config.num_frames,
        config.frame_rate,
        config.short_clip,
      )
      frames = [clip.frames[i] for i in indices.numpy()]
    if use_audio:
      samples = self._slice(
        tf.constant(clip.waveform, tf.float32), rate, offset, duration
      ).numpy()
    return frames, samples

  def embed(self, clips: Sequence[schema.Clip]) -> list[Embedded]:
    """Embeds the frames, the sound and every caption of clips.

    Args:
      clips: Of any length, size and rate.

    Returns:
      What became of each. A clip that has none of the modalities has no row.
    """
    results = [Embedded() for _ in clips]
    inputs = {modality: [] for modality in self.modalities}
    for clip, result in zip(clips, results):
      faults = _find_faults(clip)
      result.faults += [
        f'{modality}: {fault}'
        for modality, fault in faults.items()
        if modality in self.modalities
      ]
      frames, samples = self._choose(clip, faults)
      if frames is not None:
        inputs[table.VIDEO].append((clip, result, frames, ''))
      if samples is not None:
        inputs[table.AUDIO].append((clip, result, samples, ''))
      if table.CAPTION in self.modalities:
        inputs[table.CAPTION] += [
          (clip, result, caption.text.encode(), caption.text)
          for caption in clip.captions
        ]
    for modality, found in inputs.items():
      # Captions may be many more than clips.
      for start in range(0, len(found), len(clips)):
        some = found[start : start + len(clips)]
        outputs = self._run(modality, [value for _, _, value, _ in some])
        for (clip, result, _, caption), output in zip(some, outputs):
          if not isinstance(output, str):
            result.num_of[modality] += 1
            result.rows += self._rows(clip, modality, output, caption)
          elif modality == table.CAPTION:
            result.notes.append(f'caption {caption!r}: {output}')
          else:
            result.faults.append(f'{modality}: {output}')
    return results

  def _rows(
    self,
    clip: schema.Clip,
    modality: str,
    output: Mapping[str, np.ndarray],
    caption: str,
  ) -> Iterator[dict]:
    captions = '\n'.join(one.text for one in clip.captions)
    for space in table.SPACES:
      if space in output:
        yield {
          table.PATH: clip.data_path,
          table.CLIP_START: clip.start / schema.MICROSECONDS,
          table.CLIP_END: clip.end / schema.MICROSECONDS,
          table.MODALITY: modality,
          table.EMBEDDING: output[space],
          table.SPACE: space,
          table.MODEL_VERSION: self.name,
          table.TEXT: caption or captions or None,
        }

  def _run(self, modality: str, values: Sequence) -> list[dict | str]:
    """Of each value its embeddings by space, or why it has none."""
    if modality == table.VIDEO:
      inputs = {signatures.FRAMES: np.array(values, object)}
    elif modality == table.AUDIO:
      rates = np.full([len(values)], self.form.audio.sample_rate, np.int32)
      inputs = {
        signatures.WAVEFORM: np.stack(values),
        signatures.SAMPLE_RATE: rates,
      }
    else:
      inputs = {signatures.TEXT: np.array(values, object)}
    try:
      outputs = self._functions[modality](
        **{name: tf.constant(value) for name, value in inputs.items()}
      )
    except tf.errors.InvalidArgumentError as e:
      if len(values) == 1:
        return [_reason(e.message)]
      # One of them is at fault: the others are not lost.
      return [self._run(modality, [value])[0] for value in values]
    except tf.errors.ResourceExhaustedError as e:
      raise ValueError(
        f'Memory ran out for {len(values)} clips at once ({modality}). Give a '
        'smaller `batch_size` (--batch_size); what is done is kept.'
      ) from e
    outputs = {
      space: outputs[space].numpy()
      for space in table.SPACES
      if space in outputs
    }
    results = []
    for i in range(len(values)):
      one = {space: array[i] for space, array in outputs.items()}
      is_finite = all(np.isfinite(vector).all() for vector in one.values())
      results.append(one if is_finite else 'its embedding is not finite')
    return results


def _frame_times(clip: schema.Clip) -> Sequence[int]:
  return clip.timestamps or schema.frame_times(
    len(clip.frames), clip.frame_rate
  )


def time_faults(clip: schema.Clip) -> dict[str, str]:
  """What is wrong with the times and rates of a clip, by modality."""
  faults = {}
  if clip.frames:
    rate = clip.frame_rate
    if rate and not _MIN_FRAME_RATE <= rate <= _MAX_FRAME_RATE:
      faults[table.VIDEO] = (
        f'its frame rate, {rate:g}, is not in '
        f'[{_MIN_FRAME_RATE:g}, {_MAX_FRAME_RATE:g}]'
      )
    elif not clip.timestamps and not rate:
      faults[table.VIDEO] = 'its frames have neither times nor a rate'
    elif len(_frame_times(clip)) != len(clip.frames):
      faults[table.VIDEO] = 'it has more times than frames, or less'
    elif (np.diff(_frame_times(clip)) < 0).any():
      faults[table.VIDEO] = 'the times of its frames fall'
  if clip.waveform is not None:
    rate = clip.sample_rate
    if not rate:
      faults[table.AUDIO] = 'it has no sample rate'
    elif not _MIN_SAMPLE_RATE <= rate <= _MAX_SAMPLE_RATE:
      faults[table.AUDIO] = (
        f'its sample rate, {rate:g}, is not in '
        f'[{_MIN_SAMPLE_RATE}, {_MAX_SAMPLE_RATE}]'
      )
  return faults


def _find_faults(clip: schema.Clip) -> dict[str, str]:
  """What is wrong with the numbers of a clip, by modality."""
  faults = time_faults(clip)
  if clip.waveform is not None and table.AUDIO not in faults:
    fault = schema.waveform_fault(clip.waveform)
    if fault:
      faults[table.AUDIO] = fault
  return faults


def _reason(message: str) -> str:
  """What an operation said, without where in the graph that was."""
  said = message.partition('[[{{node')[0].strip().splitlines()[-1]
  said, num_prefixes = _ASSERTION.subn('', _PREFIX.sub('', said.strip()))
  if num_prefixes:  # [words] [values]
    said = said.replace('] [', ' ').strip('[]')
  return said[:200]
