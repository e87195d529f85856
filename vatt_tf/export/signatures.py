"""The signatures of an exported model, from raw inputs to embeddings.

Preprocessing is part of the graph, and uses the functions of the evaluation
pipeline, so that a clip has the same embedding as in evaluation. The graph has
only core TensorFlow ops, and TF-Text ops for tokenizers that need them.
"""

import dataclasses

import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names, modalities
from vatt_tf.input_pipeline import audio as audio_lib
from vatt_tf.input_pipeline import (
  audio_config,
  crop_windows,
  frame_ops,
  video_config,
)
from vatt_tf.input_pipeline import text as text_lib
from vatt_tf.input_pipeline import video as video_lib
from vatt_tf.models import classification, detection, vatt

DEFAULT = 'serving_default'

# Names of the inputs in the signatures.
FRAMES = 'frames'
IMAGE = 'image'
WAVEFORM = 'waveform'
SAMPLE_RATE = 'sample_rate'
TEXT = 'text'
EMBEDDING = 'embedding'

# Other sample rates are mistakes, and would take much memory to resample.
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 384_000

# Names of the outputs.
FEATURE = 'feature'
VIDEO_AUDIO = 'video_audio_embedding'
VIDEO_TEXT = 'video_text_embedding'
AUDIO_TEXT = 'audio_text_embedding'
MAP = 'map'
SCORE = 'score'
BOXES = detection.BOXES
SCORES = detection.SCORES
CLASSES = detection.CLASSES
NUM_DETECTIONS = detection.NUM_DETECTIONS

# The model's key for each output name, by modality.
_OUTPUTS = {
  modality: {
    f'{pair}_embedding': key
    for pair, key in modalities.embeddings_of(modality).items()
  }
  for modality in modalities.MODALITIES
}


def _check(condition, message, value):
  """An operation that fails with a message for the client."""
  return tf.debugging.Assert(condition, [message, value], summarize=8)


# Video.


def sample_clip(
  frames: tf.Tensor, config: video_config.VideoConfig
) -> tf.Tensor:
  """Chooses the frames of one clip from the frames of a request.

  It works like evaluation: if there are more frames than the clip has, it takes
  the middle ones; if there are fewer, it starts again from the first, or with
  `short_clip` 'hold' repeats the last.

  Args:
    frames: (B, T, ...): frames at the frame rate of the model, T at least 1.
    config: Configuration of the frames.

  Returns:
    (B, num_frames, ...).
  """
  count = tf.shape(frames)[1]
  first = tf.maximum(count - config.num_frames, 0) // 2
  places = first + tf.range(config.num_frames)
  if config.short_clip == video_config.LOOP:
    places %= tf.maximum(count, 1)
  else:
    places = tf.minimum(places, count - 1)
  return tf.gather(frames, places, axis=1)


def finish_raw_frames(
  frames: tf.Tensor, config: video_config.VideoConfig
) -> tf.Tensor:
  """Cuts out the central window, resizes it, and scales the values.

  Where the window is at least twice as large as the model's frames, whole
  blocks of pixels are averaged first, because JPEG images are then decoded at
  half (a quarter, an eighth) of their size.

  Args:
    frames: (B, T, h, w, 3) uint8.
    config: Configuration of the frames.

  Returns:
    (B, T, H, W, 3) float32 in [-1, 1].
  """
  shape = tf.shape(frames)
  window = crop_windows.central_window(shape[2], shape[3], config)
  flat = tf.reshape(frames, tf.concat([[-1], shape[2:4], [3]], axis=0))
  branches = []
  for ratio in frame_ops.JPEG_RATIOS:

    def branch(ratio=ratio):
      top, left, height, width = tf.unstack(window // ratio)
      images = flat
      if ratio > 1:
        # As in JPEG, the blocks begin at the first pixel, and the last one may
        # be incomplete.
        margin = -shape[2:4] % ratio
        padding = [[0, 0], [0, margin[0]], [0, margin[1]], [0, 0]]
        images = tf.cast(tf.pad(images, padding, 'SYMMETRIC'), tf.float32)
        images = tf.nn.avg_pool2d(images, ratio, ratio, 'VALID')
        images = tf.cast(tf.round(images), tf.uint8)
      return images[:, top : top + height, left : left + width]

    branches.append(branch)
  flat = tf.switch_case(frame_ops.jpeg_ratio(window, config.size), branches)
  flat = frame_ops.resize(flat, config.size)  # (B * T, H, W, 3)
  clips = tf.reshape(flat, [-1, *config.shape])
  return frame_ops.scale_values(clips)


def decode_clips(
  frames: tf.Tensor, config: video_config.VideoConfig
) -> tf.Tensor:
  """Decodes and finishes clips of JPEG images.

  Args:
    frames: (B, T) string: JPEG images, of one size in each clip.
    config: Configuration of the frames.

  Returns:
    (B, T, H, W, 3) float32 in [-1, 1].
  """

  def decode(clip):
    indices = tf.range(config.num_frames)
    return video_lib.finish_frames(
      video_lib.load_frames(clip, indices, config), config
    )

  spec = tf.TensorSpec(config.shape, tf.float32)
  return tf.map_fn(decode, frames, fn_output_signature=spec)


# Sound.


def finish_sounds(
  waveforms: tf.Tensor,
  sample_rates: tf.Tensor,
  config: audio_config.AudioConfig,
  is_looped: bool,
) -> dict[str, tf.Tensor]:
  """Cuts the middle out of sounds, at the model's rate and in its form.

  Args:
    waveforms: (B, S) float32 in [-1, 1].
    sample_rates: (B,) int32: samples per second.
    config: Configuration of the sound.
    is_looped: Whether sounds that are too short start again, instead of ending
      in silence.

  Returns:
    (B, num_samples, 1) or (B, F, M) float32.
  """

  def finish(row):
    waveform, rate = row
    seconds = tf.cast(tf.size(waveform), tf.float64) / tf.cast(rate, tf.float64)
    duration = tf.cast(seconds * 1e6, tf.int64)
    room = tf.maximum(duration - round(config.seconds * 1e6), 0)
    offset = tf.cast(0.5 * tf.cast(room, tf.float64), tf.int64)
    samples = audio_lib.slice_waveform(
      waveform, rate, offset, duration, config, is_looped
    )
    return audio_lib.finish_waveform(samples, config)

  spec = tf.TensorSpec(config.shape, tf.float32)
  return tf.map_fn(finish, (waveforms, sample_rates), fn_output_signature=spec)


class ServedModel(tf.Module):
  """A model with its preprocessing, as functions of raw inputs.

  Attributes:
    functions: `tf.function`s of named inputs by signature, which return
      dictionaries. `embed_video` takes raw frames, `embed_video_jpeg` encoded
      frames, `embed_image` raw images, `embed_audio` waveforms and their rates,
      `embed_text` strings; for a classifier the names begin with `classify`.
      `localize_audio` takes frames and a sound, if the model was trained to say
      where in a picture something sounds; `localize_video_audio` and
      `localize_video_text` take frames and a vector of one of the spaces; all
      of them are also there for encoded frames, `…_jpeg`. A detector
      has `detect`, which takes raw images, instead of all these.
      `serving_default` is the first of them. Images go through the image
      network of the video tower (see `tower.Tower.deflate`).
    video: Configuration of the frames, or None.
    audio: Configuration of the sound, or None.
    text: Configuration of the captions, or None.
    num_parameters: Number of parameters.

  Args:
    model: Built `models.vatt.VATT`, `models.classification.Classifier` or
      `models.detection.Detector`.
    video: `VideoConfig` of evaluation, or None if the model has no video.
    audio: `AudioConfig` of evaluation, or None if the model has no sound.
    text: `TextConfig` of evaluation, or None if the model has no text.

  Raises:
    ValueError: A modality of the model has no configuration, or takes another
      form of sound.
  """

  def __init__(
    self,
    model: tf_keras.Model,
    video: video_config.VideoConfig | None = None,
    audio: audio_config.AudioConfig | None = None,
    text: text_lib.TextConfig | None = None,
  ):
    super().__init__(name='served_model')
    self._is_classifier = isinstance(model, classification.Classifier)
    # Save only the variables: layers would also save their own functions.
    self._saved_variables = list(model.variables)
    self.num_parameters = model.count_params()
    configs = {
      modalities.VIDEO: video,
      modalities.AUDIO: audio,
      modalities.TEXT: text,
    }
    for modality in model.modalities:
      if configs[modality] is None:
        raise ValueError(
          f'`{modality}` must be given, because the model has a tower for it. '
          f'Received: {modality}=None'
        )
    if modalities.AUDIO in model.modalities:
      expected = model.towers[modalities.AUDIO].input_name
      if audio.input_name != expected:
        raise ValueError(
          '`audio` must have the form of the model, whose input is '
          f'{expected}. Received: audio.form={audio.form!r}'
        )
    self.video, self.audio, self.text = video, audio, text
    self._is_looped = video is None or video.short_clip == video_config.LOOP
    self.tokenizer = None
    if modalities.TEXT in model.modalities:
      self.tokenizer = text_lib.make_tokenizer(text)
    if isinstance(model, detection.Detector):
      self.functions = self._make_detection(model)
      return
    image_tower = _image_tower(model, video)
    if image_tower is not None:
      self._saved_variables += image_tower.variables
    self.functions = self._make_signatures(model, image_tower)

  def _make_detection(self, model):
    """The functions of a detector by name."""
    num_frames = self.video.num_frames
    config = dataclasses.replace(self.video, num_frames=1)

    @tf.function(
      input_signature=[
        tf.TensorSpec([None, None, None, 3], tf.uint8, name=IMAGE)
      ],
      autograph=False,
    )
    def detect(image):
      with tf.control_dependencies([_check_image(image)]):
        frames = tf.expand_dims(image, 1)
      size = tf.shape(image)[1:3]
      window = crop_windows.central_window(size[0], size[1], config)
      frames = finish_raw_frames(frames, config)
      found = model.detect(tf.repeat(frames, num_frames, 1))
      # From shares of the window to shares of the image.
      top, left, height, width = tf.unstack(tf.cast(window, tf.float32))
      edges = found[BOXES] * tf.stack([width, height] * 2)
      edges += tf.stack([left, top] * 2)
      edges /= tf.cast(tf.stack([size[1], size[0]] * 2), tf.float32)
      exists = found[CLASSES] >= 0
      edges = tf.where(exists[..., tf.newaxis], edges, 0.0)
      return {**found, BOXES: edges}

    return {'detect': detect, DEFAULT: detect}

  def _make_signatures(self, model, image_tower):
    """The functions by name; the first is also the default."""

    def run(modality, value):
      if self._is_classifier:
        name = model.tower.input_name
        return self._classify(model, model.encode({name: value}))
      return name_outputs(modality, model.embed(modality, value))

    def name_outputs(modality, rows):
      outputs = {FEATURE: rows[modalities.MODALITIES[modality].feature]}
      for name, key in _OUTPUTS[modality].items():
        if key in rows:
          outputs[name] = tf.math.l2_normalize(rows[key], axis=-1)
      return outputs

    def run_frames(frames):
      with tf.control_dependencies([_check_frames(frames)]):
        frames = sample_clip(frames, self.video)
      return run('video', finish_raw_frames(frames, self.video))

    def run_jpeg(frames):
      with tf.control_dependencies([_check_frames(frames)]):
        frames = sample_clip(frames, self.video)
      return run('video', decode_clips(frames, self.video))

    def run_image(image):
      config = dataclasses.replace(self.video, num_frames=1)
      with tf.control_dependencies([_check_image(image)]):
        frames = tf.expand_dims(image, 1)
      frames = finish_raw_frames(frames, config)
      key = modalities.MODALITIES[modalities.VIDEO].feature
      pooled = {key: image_tower(frames).feature}
      if self._is_classifier:
        return self._classify(model, pooled)
      return name_outputs(modalities.VIDEO, model.project(pooled, {}))

    def run_sound(waveform, sample_rate):
      with tf.control_dependencies(_check_sounds(waveform, sample_rate)):
        sounds = finish_sounds(
          waveform, sample_rate, self.audio, self._is_looped
        )
      return run('audio', sounds)

    def compare(places, vector):
      similarities = vatt.compare_places(places, vector)
      return {
        MAP: vatt.smooth_maps(similarities, model.map_smoothing),
        SCORE: vatt.score_of(similarities),
      }

    def localize_in(embed_places, finish_frames):
      """A function from frames and a vector of a space."""

      def run_localize(frames, embedding):
        with tf.control_dependencies([_check_frames(frames)]):
          frames = sample_clip(frames, self.video)
        video = finish_frames(frames, self.video)
        return compare(embed_places(video), embedding)

      return run_localize

    def localize(finish_frames):
      """A function from frames, which `finish_frames` finishes, and a sound."""

      def run_localize(frames, waveform, sample_rate):
        checks = _check_sounds(waveform, sample_rate)
        with tf.control_dependencies([_check_frames(frames), *checks]):
          frames = sample_clip(frames, self.video)
          sounds = finish_sounds(
            waveform, sample_rate, self.audio, self._is_looped
          )
        embeddings = model.embed(modalities.AUDIO, sounds)
        places = model.embed_places(finish_frames(frames, self.video))
        return compare(places, embeddings[feature_names.AUDIO_VA])

      return run_localize

    def run_text(text):
      ids, mask = text_lib.encode_texts(text, self.tokenizer, self.text)
      check = _check(
        tf.reduce_all(mask),
        '`text` must hold a word in each row. Received:',
        text,
      )
      with tf.control_dependencies([check]):
        return run('text', tf.ensure_shape(ids, [None, self.text.max_words]))

    verb = 'classify' if self._is_classifier else 'embed'
    raw = {FRAMES: tf.TensorSpec([None, None, None, None, 3], tf.uint8)}
    jpeg = {FRAMES: tf.TensorSpec([None, None], tf.string)}
    sound = {
      WAVEFORM: tf.TensorSpec([None, None], tf.float32),
      SAMPLE_RATE: tf.TensorSpec([None], tf.int32),
    }
    inputs = {
      f'{verb}_video': (run_frames, raw),
      f'{verb}_video_jpeg': (run_jpeg, jpeg),
      f'{verb}_image': (
        run_image,
        {IMAGE: tf.TensorSpec([None, None, None, 3], tf.uint8)},
      ),
      f'{verb}_audio': (run_sound, sound),
      f'{verb}_text': (run_text, {TEXT: tf.TensorSpec([None], tf.string)}),
    }
    if getattr(model, 'video_token_head', None) is not None:
      inputs |= {
        'localize_audio': (localize(finish_raw_frames), {**raw, **sound}),
        'localize_audio_jpeg': (localize(decode_clips), {**jpeg, **sound}),
      }
      spaces = {modalities.VIDEO_AUDIO: (model.embed_places, model.head.d_va)}
      mapped = model.head.map_to_text(tf.zeros([1, model.head.d_va]))
      if mapped is not None:
        spaces[modalities.VIDEO_TEXT] = (
          model.embed_places_in_text,
          mapped.shape[-1],
        )
      for space, (embed_places, width) in spaces.items():
        vector = {EMBEDDING: tf.TensorSpec([None, width], tf.float32)}
        for end, finish, frames in (
          ('', finish_raw_frames, raw),
          ('_jpeg', decode_clips, jpeg),
        ):
          inputs[f'localize_{space}{end}'] = (
            localize_in(embed_places, finish),
            {**frames, **vector},
          )
    available = [*model.modalities, *([] if image_tower is None else [IMAGE])]
    signatures = {}
    for name, (function, specs) in inputs.items():
      if name.split('_')[1] not in available:
        continue
      named = [
        tf.TensorSpec(spec.shape, spec.dtype, name=key)
        for key, spec in specs.items()
      ]
      signatures[name] = tf.function(
        function, input_signature=named, autograph=False
      )
      signatures.setdefault(DEFAULT, signatures[name])
    return signatures

  def _classify(self, model, pooled):
    outputs = model.project(pooled)
    logits = outputs[classification.LOGITS]
    return {
      classification.LOGITS: logits,
      classification.PROBABILITIES: model.probabilities(logits),
      FEATURE: outputs[modalities.MODALITIES[model.modality].feature],
    }


def _image_tower(model, video):
  """The image network of a model's video tower, or None."""
  tower = model.towers.get(modalities.VIDEO)
  if tower is None or video.num_frames == 1:
    return tower
  return tower.deflate()


def _check_frames(frames):
  return _check(
    tf.shape(frames)[1] > 0,
    '`frames` must hold at least one frame of each clip. Received shape:',
    tf.shape(frames),
  )


def _check_image(image):
  return _check(
    tf.reduce_all(tf.shape(image)[1:3] > 1),
    '`image` must have at least two rows and columns of pixels. '
    'Received shape:',
    tf.shape(image),
  )


def _check_sounds(waveforms, sample_rates):
  is_sound = tf.reduce_all(tf.math.is_finite(waveforms), axis=-1)
  return [
    _check(
      tf.shape(waveforms)[1] > 0,
      '`waveform` must hold at least one sample. Received shape:',
      tf.shape(waveforms),
    ),
    _check(
      tf.reduce_all(is_sound),
      '`waveform` must be finite. Received rows that are not (0):',
      tf.cast(is_sound, tf.int32),
    ),
    _check(
      tf.reduce_all(
        (sample_rates >= MIN_SAMPLE_RATE) & (sample_rates <= MAX_SAMPLE_RATE)
      ),
      f'`sample_rate` must be samples per second, in [{MIN_SAMPLE_RATE}, '
      f'{MAX_SAMPLE_RATE}]. Received:',
      sample_rates,
    ),
  ]
