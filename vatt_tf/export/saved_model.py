"""Writes SavedModels in the layout that `tensorflow_model_server` expects.

<output>/
  models.config      --model_config_file of the server
  batching.config    --batching_parameters_file of the server
  <version>/
    saved_model.pb, variables/, assets/
    assets.extra/
      tf_serving_warmup_requests
      model_card.md, config.gin
"""

from collections.abc import Sequence
import os
import shutil

from google.protobuf import text_format
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from vatt_tf.core import file_utils
from vatt_tf.export import signatures

WARMUP = 'tf_serving_warmup_requests'
CARD = 'model_card.md'
MODELS_CONFIG = 'models.config'
BATCHING_CONFIG = 'batching.config'

_EXTRA = 'assets.extra'
_BATCHING = """\
# Requests that wait are computed together. A request waits at most this long.
max_batch_size { value: 32 }
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 64 }
num_batch_threads { value: 2 }
"""
# Description of each input, for the model card.
_INPUTS = {
  'frames/uint8': (
    'RGB frames in [0, 255], of any size, at {frame_rate:g} frames per second; '
    'the model takes {num_frames}, the middle ones if there are more'
  ),
  'frames/string': (
    'JPEG frames, of one size in each clip, at {frame_rate:g} frames per '
    'second; the model takes {num_frames}, the middle ones if there are more'
  ),
  'image/uint8': (
    'RGB images in [0, 255], of at least 2 x 2 pixels, for the image network '
    'that follows from the video network'
  ),
  'waveform/float32': (
    'mono samples in [-1, 1]; the model takes {seconds:g} seconds, the middle '
    'if there are more'
  ),
  'sample_rate/int32': (
    'samples per second of each waveform, any rate in '
    f'[{signatures.MIN_SAMPLE_RATE}, {signatures.MAX_SAMPLE_RATE}]'
  ),
  'embedding/float32': (
    'vector of the space, which `embed_audio`, `embed_text` or `embed_video` '
    'gives'
  ),
  'text/string': 'UTF-8 text; the model takes {max_words} tokens of it',
}
_OUTPUTS = {
  signatures.VIDEO_AUDIO: 'unit vector in the space of video and sound',
  signatures.VIDEO_TEXT: 'unit vector in the space of video and text',
  signatures.AUDIO_TEXT: (
    'unit vector of the sound, projected to the space of video and text'
  ),
  signatures.FEATURE: 'pooled feature of the tower (not normalised)',
  signatures.MAP: (
    'cosine of the sound and each place of the frames: steps, rows, columns'
  ),
  signatures.SCORE: 'mean over the steps of the highest cosine',
  signatures.BOXES: (
    'left, upper, right and lower edge of each detection, as shares of the '
    'image'
  ),
  signatures.SCORES: 'score of each detection in [0, 1], 0 behind the last',
  signatures.CLASSES: 'class of each detection, -1 behind the last',
  signatures.NUM_DETECTIONS: 'number of detections',
  'logits': 'logit of each class',
  'probabilities': 'probability of each class',
}


def find_versions(base_path: str) -> list[int]:
  """Returns the version numbers in the folder of a model, in ascending order.

  Args:
    base_path: Folder of the model, which need not exist.

  Returns:
    List of int.

  Raises:
    OSError: The folder cannot be read or reached.
  """
  names = file_utils.list_folder(base_path)
  return sorted(int(name) for name in names if name.isdecimal())


def warmup_requests(
  served: signatures.ServedModel, model_name: str
) -> list[prediction_log_pb2.PredictionLog]:
  """Returns a request with one valid row for each signature.

  Args:
    served: Model to export.
    model_name: Name of the model on the server.

  Returns:
    List of `PredictionLog`.
  """
  logs = []
  for name, function in served.functions.items():
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = name
    for spec in function.input_signature:
      value = _example(spec, served)
      request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(value))
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    logs.append(log)
  return logs


def _example(spec, served):
  """A small valid input of a signature."""
  rng = np.random.default_rng(0)
  if spec.name == signatures.FRAMES:
    video = served.video
    image = rng.integers(0, 256, [*video.size, 3], np.uint8)
    if spec.dtype == tf.uint8:
      return np.stack([image] * video.num_frames)[None]
    return np.array([[tf.io.encode_jpeg(image).numpy()] * video.num_frames])
  if spec.name == signatures.IMAGE:
    return rng.integers(0, 256, [1, *served.video.size, 3], np.uint8)
  if spec.name == signatures.WAVEFORM:
    size = served.audio.num_samples
    return rng.uniform(-0.5, 0.5, [1, size]).astype(np.float32)
  if spec.name == signatures.SAMPLE_RATE:
    return np.array([served.audio.sample_rate], np.int32)
  if spec.name == signatures.EMBEDDING:
    return rng.standard_normal([1, spec.shape[1]]).astype(np.float32)
  return np.array([b'a video of a person who speaks'])


def models_config(output: str, model_name: str) -> str:
  """Returns the `ModelServerConfig` of a model as text."""
  config = model_server_config_pb2.ModelServerConfig()
  model = config.model_config_list.config.add()
  model.name = model_name
  model.base_path = os.path.abspath(output)
  model.model_platform = 'tensorflow'
  return text_format.MessageToString(config)


def model_card(
  served: signatures.ServedModel,
  model_name: str,
  checkpoint: str,
  precision: str,
  label_names: Sequence[str] | str | None = None,
) -> str:
  """Returns the description of an exported model as Markdown.

  Args:
    served: Model to export.
    model_name: Name of the model on the server.
    checkpoint: Prefix of the checkpoint.
    precision: Precision of the model's computation.
    label_names: Names of the classes of a classifier, or None.

  Returns:
    The text.
  """
  numbers = {}
  if served.video is not None:
    numbers['frame_rate'] = served.video.frame_rate
    numbers['num_frames'] = served.video.num_frames
  if served.audio is not None:
    numbers['seconds'] = served.audio.seconds
  if served.text is not None:
    numbers['max_words'] = served.text.max_words
  step = checkpoint.rsplit('-', 1)[-1]
  lines = [
    f'# {model_name}',
    '',
    'A model of video, sound and text, exported by vatt_tf, the '
    'implementation of VATT (NeurIPS 2021) and MMV (NeurIPS 2020).',
    '',
    f'- Checkpoint: `{checkpoint}`, step {step}',
    f'- Parameters: {served.num_parameters:,}',
    f'- Computes in {precision}; outputs are float32',
    '- The configuration of the run is in `config.gin` beside this file',
    '',
  ]
  default = served.functions[signatures.DEFAULT]
  for name, function in served.functions.items():
    if name == signatures.DEFAULT:
      continue
    same = ' (also `serving_default`)' if function is default else ''
    lines += [f'## `{name}`{same}', '', '| input | shape, type | holds |']
    lines.append('|---|---|---|')
    for spec in function.input_signature:
      words = _INPUTS[f'{spec.name}/{spec.dtype.name}'].format(**numbers)
      lines.append(
        f'| `{spec.name}` | {_shape(spec.shape)} {spec.dtype.name} | {words} |'
      )
    lines += ['', '| output | shape, type | holds |', '|---|---|---|']
    outputs = function.get_concrete_function().structured_outputs
    for key, spec in sorted(outputs.items()):
      lines.append(
        f'| `{key}` | {_shape(spec.shape)} {spec.dtype.name} | '
        f'{_OUTPUTS.get(key, "")} |'
      )
    lines.append('')
  if label_names:
    lines += ['## Classes', '']
    lines += [f'{i}. {name}' for i, name in enumerate(label_names)]
    lines.append('')
  return '\n'.join(lines)


def _shape(shape):
  sizes = ['any' if size is None else str(size) for size in shape]
  return f'({", ".join(sizes)})'


def write(
  served: signatures.ServedModel,
  output: str,
  checkpoint: str,
  gin_text: str,
  model_name: str = 'vatt',
  version: int | None = None,
  precision: str = 'float32',
  label_names: Sequence[str] | str | None = None,
) -> str:
  """Writes a version of a model, which appears completely or not at all.

  Args:
    served: Model to export.
    output: Folder of the model, the server's `base_path`.
    checkpoint: Prefix of the checkpoint, for the card.
    gin_text: Text of the gin configuration.
    model_name: Name of the model on the server.
    version: Number of the version, above 0. None means the next.
    precision: Precision of the model's computation, for the card.
    label_names: Names of the classes of a classifier, or None.

  Returns:
    The path of the version.

  Raises:
    ValueError: The version exists or is not above 0, or the folder is remote.
    OSError: The version cannot be written.
  """
  file_utils.check_local('output', output)
  if version is None:
    version = max(find_versions(output), default=0) + 1
  if version < 1:
    raise ValueError(f'`version` must be above 0. Received: version={version}')
  path = os.path.join(output, str(version))
  if tf.io.gfile.exists(path):
    raise ValueError(
      f'Version {version} already exists in {output}. Give another `version`, '
      'or none for the next. A version must not change, because servers do not '
      'load it again.'
    )
  os.makedirs(output, exist_ok=True)
  # A server looks for folders with numbers as names, so it does not see the
  # temporary folder.
  temporary = os.path.join(output, f'.{version}.{os.getpid()}.part')
  try:
    tf.saved_model.save(served, temporary, signatures=served.functions)
    extra = os.path.join(temporary, _EXTRA)
    os.makedirs(extra)
    with tf.io.TFRecordWriter(os.path.join(extra, WARMUP)) as writer:
      for log in warmup_requests(served, model_name):
        writer.write(log.SerializeToString())
    card = model_card(served, model_name, checkpoint, precision, label_names)
    file_utils.write_text(os.path.join(extra, CARD), card)
    file_utils.write_text(os.path.join(extra, 'config.gin'), gin_text)
    os.rename(temporary, path)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise
  file_utils.write_text(
    os.path.join(output, MODELS_CONFIG), models_config(output, model_name)
  )
  file_utils.write_text(os.path.join(output, BATCHING_CONFIG), _BATCHING)
  return path
