"""An exported model that embeds clips, by its own signatures.

If a clip is longer or shorter than what the model takes, its frames and samples
are chosen as in evaluation, with the functions of the input pipeline, so that a
clip has the same embedding there.
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
from vatt_tf.core import modalities as modality_table
from vatt_tf.embedding import table
from vatt_tf.export import signatures
from vatt_tf.input_pipeline import audio as audio_lib
from vatt_tf.input_pipeline import (
  audio_config,
  crop_windows,
  tokenizers,  # noqa: F401, registers their ops
  video_config,
)
from vatt_tf.input_pipeline import video as video_lib
from vatt_tf.input_pipeline.records import schema

_SIGNATURES = {
  table.VIDEO: 'embed_video_jpeg',
  table.AUDIO: 'embed_audio',
  table.CAPTION: 'embed_text',
}
_GRAPH = 'saved_model.pb'
# Configuration beside a model; it defines the inputs of the model.
_CONFIG = os.path.join('assets.extra', 'config.gin')
# Parts of an operation's message.
_PREFIX = re.compile(r'^(\(\d+\) )?(INVALID_ARGUMENT: )?\s*')
_ASSERTION = re.compile(r'^assertion failed: ')
# Hexadecimal digits of the digest.
_DIGEST_LENGTH = 12
# Beyond these a rate is a mistake; the times of frames are whole µs.
_MIN_FRAME_RATE, _MAX_FRAME_RATE = 1e-3, 1e6
_MIN_SAMPLE_RATE, _MAX_SAMPLE_RATE = 1_000, 768_000


def find_version(path: str, name: str = '') -> str:
  """Returns the folder of a version of a model.

  Args:
    path: Folder of a version, or of several versions.
    name: Name that `version_name` returned, or ''. Of several versions the one
      of this number is taken, which may be another model; if it does not exist,
      the newest.

  Raises:
    ValueError: There is no version.
    OSError: The folder cannot be read or reached.
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
      'vatt_tf.export_saved_model` writes one.'
    )
  number = name.rpartition('-')[0]
  newest = max(versions, key=int)
  return os.path.join(path, number if number in versions else newest)


def find_config(version: str) -> str:
  """Returns the path of the gin file beside a version, with its inputs.

  Raises:
    ValueError: The file does not exist.
  """
  path = os.path.join(version, _CONFIG)
  if not tf.io.gfile.exists(path):
    raise ValueError(
      f'`saved_model` must have {_CONFIG} in it, which sets how many frames '
      'and samples it takes. Received: saved_model='
      f'{version!r}. Export the checkpoint with `python -m '
      'vatt_tf.export_saved_model`.'
    )
  return path


def version_name(version: str) -> str:
  """Returns the number of a version and a digest, as in `3-0a1b2c3d4e5f`.

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
  """Form of a model's inputs: the configurations of evaluation.

  Attributes:
    video: Frames that the model takes; None for a model without video.
    audio: Sound that the model takes; None for a model without sound.
  """

  video: video_config.VideoConfig | None = None
  audio: audio_config.AudioConfig | None = None

  @classmethod
  def configured(cls) -> 'Form':
    """Returns the form of the parsed configuration, in the scope `eval`."""
    with gin.config_scope('eval'):
      return cls(
        gin.get_configurable(video_config.VideoConfig)(),
        gin.get_configurable(audio_config.AudioConfig)(),
      )

  @property
  def seconds(self) -> float:
    """Length of the model's inputs in seconds; 0 if it has neither."""
    return max(
      (config.seconds for config in (self.video, self.audio) if config),
      default=0.0,
    )

  def window(
    self, height: int, width: int
  ) -> tuple[float, float, float, float]:
    """Returns the part of frames that the model sees.

    Args:
      height: Height of the frames in pixels.
      width: Width of the frames in pixels.

    Returns:
      Left, upper, right and lower edge, as shares of the frame.
    """
    top, left, rows, columns = crop_windows.central_window(
      tf.constant(height), tf.constant(width), self.video
    ).numpy()
    size = np.array([width, height] * 2, float)
    edges = np.array([left, top, left + columns, top + rows])
    return tuple((edges / size).tolist())

  @property
  def is_looped(self) -> bool:
    """Whether sounds that are too short start again."""
    return self.video is None or self.video.short_clip == video_config.LOOP


class Chooser:
  """Chooses what a model takes of clips: the middle, as in evaluation.

  Args:
    form: Form of the model's inputs.
  """

  def __init__(self, form: Form):
    self._form = form
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
      waveform, rate, offset, duration, self._form.audio, self._form.is_looped
    )

  def choose(
    self, clip: schema.Clip, use_video: bool, use_audio: bool
  ) -> tuple[list[bytes] | None, np.ndarray | None, int]:
    """Chooses frames and samples.

    Args:
      clip: Clip without faults in what is used.
      use_video: Whether to take frames, if it has any.
      use_audio: Whether to take sound, if it has any.

    Returns:
      (frames, samples, offset): as many as the model takes, at its rates, or
      None; and where they begin in the clip, in µs.
    """
    use_video &= bool(clip.frames)
    use_audio &= clip.waveform is not None
    times, duration = np.zeros([0], np.int64), 0
    if use_video:
      times = np.asarray(frame_times(clip), np.int64)
      period = int(1e6 / clip.frame_rate) if clip.frame_rate else 0
      duration = int(times[-1]) + period
    rate = 0
    if use_audio:
      rate = round(clip.sample_rate)
      duration = max(duration, int(clip.waveform.size / rate * 1e6))
    room = max(duration - round(self._form.seconds * 1e6), 0)
    offset = int(0.5 * room)
    # The sound starts with a frame.
    place = int(np.searchsorted(times, offset, side='right')) - 1
    offset = int(times[place]) if place >= 0 else offset
    frames = samples = None
    if use_video:
      indices = video_lib.sample_indices(
        tf.constant(times),
        tf.constant(offset, tf.int64),
        tf.constant(duration, tf.int64),
        self._form.video,
      )
      frames = [clip.frames[i] for i in indices.numpy()]
    if use_audio:
      samples = self._slice(
        tf.constant(clip.waveform, tf.float32), rate, offset, duration
      ).numpy()
    return frames, samples, offset


@dataclasses.dataclass(frozen=True)
class Located:
  """Where in a clip something is.

  Attributes:
    map: (t, h, w) float32, cosines in [-1, 1].
    start: Start of the map in seconds, in the file of the clip.
    end: End of the map in seconds.
    window: Part of the frame that the map is of, see `Form.window`.
  """

  map: np.ndarray
  start: float
  end: float
  window: tuple[float, float, float, float]


@dataclasses.dataclass
class Embedded:
  """Embeddings and faults of a clip.

  Attributes:
    rows: Dictionaries with `table.COLUMNS`.
    faults: Reasons why frames or sound have no row.
    notes: Reasons why captions have no row.
    num_of: Number of embedded inputs by modality.
  """

  rows: list[dict] = dataclasses.field(default_factory=list)
  faults: list[str] = dataclasses.field(default_factory=list)
  notes: list[str] = dataclasses.field(default_factory=list)
  num_of: dict[str, int] = dataclasses.field(
    default_factory=lambda: dict.fromkeys(table.MODALITIES, 0)
  )


class Embedder:
  """Embeds clips.

  Attributes:
    version: Absolute path of the version's folder.
    name: Name of the version (`version_name`).
    form: Form of the model's inputs, without modalities that it lacks.
    modalities: Modalities to embed.
    dimensions: Dimension of the vectors, by the spaces of these modalities.

  Args:
    version: Folder of a version of a model.
    form: Configurations of evaluation.
    modalities: Modalities among `table.MODALITIES`; empty for all of the model.

  Raises:
    ValueError: The model has no embeddings, or lacks a modality.
  """

  def __init__(self, version: str, form: Form, modalities: Sequence[str] = ()):
    is_remote = file_utils.is_remote(version)
    self.version = version if is_remote else os.path.abspath(version)
    self.name = version_name(version)
    # Kept: its signatures hold no reference to their variables.
    self._loaded = tf.saved_model.load(file_utils.literal_path(version))
    self._functions = {
      modality: self._loaded.signatures[name]
      for modality, name in _SIGNATURES.items()
      if name in self._loaded.signatures
    }
    if not self._functions:
      raise ValueError(
        '`saved_model` must have a signature that embeds, '
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
    self._chooser = Chooser(self.form)
    self._localizers = {
      space: self._loaded.signatures[f'localize_{space}_jpeg']
      for space in (modality_table.VIDEO_AUDIO, modality_table.VIDEO_TEXT)
      if f'localize_{space}_jpeg' in self._loaded.signatures
    }

  @property
  def map_spaces(self) -> tuple[str, ...]:
    """Spaces whose vectors can be found in frames, such as `video_audio`."""
    return tuple(self._localizers)

  def locate(
    self, clip: schema.Clip, vector: np.ndarray, space: str
  ) -> Located:
    """Finds where in the frames of a clip a vector is.

    Args:
      clip: Clip with frames, without faults.
      vector: (D,) float: vector of the space.
      space: One of `map_spaces`.

    Returns:
      `Located`.
    """
    frames, _, offset = self._chooser.choose(clip, True, False)
    found = self._localizers[space](
      frames=tf.constant([frames]),
      embedding=tf.constant(vector[np.newaxis], tf.float32),
    )
    start = (clip.start + offset) / schema.MICROSECONDS
    return Located(
      found[signatures.MAP].numpy()[0],
      start,
      start + self.form.video.seconds,
      self.form.window(clip.height, clip.width),
    )

  def embed(self, clips: Sequence[schema.Clip]) -> list[Embedded]:
    """Embeds the frames, the sound and every caption of clips.

    Args:
      clips: Clips of any length, size and rate.

    Returns:
      Embeddings and faults of each clip. A clip without any of the modalities
      has no row.
    """
    results = [Embedded() for _ in clips]
    inputs = {modality: [] for modality in self.modalities}
    for clip, result in zip(clips, results):
      faults = find_faults(clip)
      result.faults += [
        f'{modality}: {fault}'
        for modality, fault in faults.items()
        if modality in self.modalities
      ]
      use_video, use_audio = (
        modality in self.modalities and modality not in faults
        for modality in (table.VIDEO, table.AUDIO)
      )
      frames, samples, _ = self._chooser.choose(clip, use_video, use_audio)
      if frames is not None:
        inputs[table.VIDEO].append((clip, result, frames, ''))
      if samples is not None:
        inputs[table.AUDIO].append((clip, result, samples, ''))
      if table.CAPTION in self.modalities:
        inputs[table.CAPTION] += [
          (clip, result, caption.text.encode(), caption.text)
          for caption in clip.captions
        ]
    for modality, examples in inputs.items():
      # Captions may be many more than clips.
      for start in range(0, len(examples), len(clips)):
        batch = examples[start : start + len(clips)]
        outputs = self._run(modality, [value for _, _, value, _ in batch])
        for (clip, result, _, caption), output in zip(batch, outputs):
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
    captions = '\n'.join(each.text for each in clip.captions)
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
    """Returns the embeddings of each value by space, or its fault."""
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
      # Only some are at fault: the others are not lost.
      return [self._run(modality, [value])[0] for value in values]
    except tf.errors.ResourceExhaustedError as e:
      raise ValueError(
        f'Memory ran out for {len(values)} clips at once ({modality}). Give a '
        'smaller `batch_size` (--batch_size); finished work is kept.'
      ) from e
    outputs = {
      space: outputs[space].numpy()
      for space in table.SPACES
      if space in outputs
    }
    results = []
    for i in range(len(values)):
      vectors = {space: array[i] for space, array in outputs.items()}
      is_finite = all(np.isfinite(vector).all() for vector in vectors.values())
      results.append(vectors if is_finite else 'its embedding is not finite')
    return results


def frame_times(clip: schema.Clip) -> Sequence[int]:
  """Returns the time of each frame of a clip, in µs."""
  return clip.timestamps or schema.frame_times(
    len(clip.frames), clip.frame_rate
  )


def time_faults(clip: schema.Clip) -> dict[str, str]:
  """Returns the faults of the times and rates of a clip, by modality."""
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
    elif len(frame_times(clip)) != len(clip.frames):
      faults[table.VIDEO] = 'it has more times than frames, or fewer'
    elif (np.diff(frame_times(clip)) < 0).any():
      faults[table.VIDEO] = 'the times of its frames decrease'
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


def find_faults(clip: schema.Clip) -> dict[str, str]:
  """Returns the faults of the numbers of a clip, by modality."""
  faults = time_faults(clip)
  if clip.waveform is not None and table.AUDIO not in faults:
    fault = schema.waveform_fault(clip.waveform)
    if fault:
      faults[table.AUDIO] = fault
  return faults


def _reason(message: str) -> str:
  """Returns the message of an operation, without its place in the graph."""
  reason = message.partition('[[{{node')[0].strip().splitlines()[-1]
  reason, num_prefixes = _ASSERTION.subn('', _PREFIX.sub('', reason.strip()))
  if num_prefixes:  # [words] [values]
    reason = reason.replace('] [', ' ').strip('[]')
  return reason[:200]
