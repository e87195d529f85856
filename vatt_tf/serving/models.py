"""Versions of models: listed in folders, loaded, warmed up and unloaded.

A model is a folder with a folder for each version, named by its number. The
folders are polled: a new version is loaded and answers its warm-up requests
before an older one is unloaded, which happens once no request uses it any more.
A version that cannot be loaded is reported, and the next older one serves.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import gc
import os
import threading

from absl import logging
from google.protobuf import text_format
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2
import tensorflow_text  # noqa: F401, registers the operations of tokenizers

from vatt_tf.core import file_utils
from vatt_tf.export import saved_model
from vatt_tf.serving import errors, requests

State = get_model_status_pb2.ModelVersionStatus.State

# Specs of the inputs of a signature by name.
Specs = Mapping[str, tf.TensorSpec]

DEFAULT_SIGNATURE = 'serving_default'
_METHOD_NAME = 'tensorflow/serving/predict'
_WARMUP = os.path.join('assets.extra', 'tf_serving_warmup_requests')


class Version:
  """A loaded SavedModel.

  It is loaded into a session, as TensorFlow Serving does. Loaded as an object
  it would leave the graphs of its gradients behind, which TensorFlow keeps
  forever.

  Attributes:
    model_name: Name of the model.
    number: Number of the version.
    specs: Specs of the inputs by name, by the name of the signature.
    signature_defs: Signatures as in the file, by name.

  Args:
    model_name: See the attribute.
    number: See the attribute.
    path: Folder of the SavedModel.
  """

  def __init__(self, model_name: str, number: int, path: str):
    self.model_name = model_name
    self.number = number
    graph = tf.Graph()
    self._session = tf.compat.v1.Session(graph=graph)
    try:
      with graph.as_default():
        loaded = tf.compat.v1.saved_model.load(
          self._session,
          [tf.saved_model.SERVING],
          file_utils.literal_path(path),
        )
    except BaseException:
      self.close()
      raise
    self.signature_defs = dict(loaded.signature_def)
    self._inputs, self._outputs, self.specs = {}, {}, {}
    for name, signature in self.signature_defs.items():
      if signature.method_name != _METHOD_NAME:  # such as an initialiser
        continue
      self._inputs[name], self._outputs[name] = (
        {key: graph.get_tensor_by_name(t.name) for key, t in tensors.items()}
        for tensors in (signature.inputs, signature.outputs)
      )
      self.specs[name] = {
        key: tf.TensorSpec(tensor.tensor_shape, tensor.dtype, key)
        for key, tensor in sorted(signature.inputs.items())
      }

  def close(self) -> None:
    """Frees the variables."""
    self._session.close()

  def compute(
    self, signature: str, inputs: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    """Computes a signature.

    Args:
      signature: Name of the signature.
      inputs: Arrays by name.

    Returns:
      Arrays by name.
    """
    tensors = self._inputs[signature]
    return self._session.run(
      self._outputs[signature],
      {tensors[name]: value for name, value in inputs.items()},
    )

  def warm_up(self, path: str) -> None:
    """Answers the warm-up requests of the SavedModel at a path, if any."""
    path = os.path.join(path, _WARMUP)
    if not tf.io.gfile.exists(path):
      return
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
      log = prediction_log_pb2.PredictionLog.FromString(record)
      request = log.predict_log.request
      signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
      specs = self.specs[signature]
      inputs = requests.from_protos(request.inputs, specs, len(record) + 2**20)
      self.compute(signature, inputs)


def _load(model_name, number, path):
  """Loads and warms up a version."""
  version = Version(model_name, number, path)
  try:
    version.warm_up(path)
  except BaseException:
    version.close()
    raise
  return version


@dataclasses.dataclass
class _Entry:
  """State of a version."""

  state: int = State.START
  error: errors.StatusError | None = None
  files: tuple = ()  # of the folder when it failed to load
  version: Version | None = None
  num_users: int = 0


@dataclasses.dataclass
class _Model:
  """A model, and its versions by number."""

  name: str
  base_path: str
  max_versions: int | None  # None means all
  numbers: tuple  # versions to serve; empty means any
  entries: dict = dataclasses.field(default_factory=dict)


def model_config(
  name: str, base_path: str
) -> model_server_config_pb2.ModelServerConfig:
  """Returns the configuration of one model, whose newest version serves.

  Args:
    name: Name of the model.
    base_path: Folder with the folders of versions.
  """
  config = model_server_config_pb2.ModelServerConfig()
  config.model_config_list.config.add(name=name, base_path=base_path)
  return config


def read_config(path: str) -> model_server_config_pb2.ModelServerConfig:
  """Reads a model config file, a `ModelServerConfig` in text format.

  Raises:
    OSError: The file cannot be read.
    ValueError: The file has another form.
  """
  try:
    with tf.io.gfile.GFile(path, 'rb') as file:
      text = file.read()
  except tf.errors.OpError as e:
    raise OSError(f'Cannot read {path}: {file_utils.reason(e)}') from e
  config = model_server_config_pb2.ModelServerConfig()
  try:
    text_format.Parse(text, config)
  except (text_format.ParseError, UnicodeDecodeError) as e:
    raise ValueError(
      f'{path} must be a `model_config_list` in text format, such as the '
      f'models.config that export_saved_model writes. Received: {e}'
    ) from e
  return config


class Models:
  """The models of a server.

  Args:
    config: Models to serve. Their version policies may be `latest` (by default,
      1), `all` and `specific`.
    poll_seconds: Seconds between looks at the folders; 0 looks once.
  """

  def __init__(
    self,
    config: model_server_config_pb2.ModelServerConfig,
    poll_seconds: float = 1.0,
  ):
    self._models = {}
    for model in config.model_config_list.config:
      self._add(model)
    if not self._models:
      raise ValueError('There must be a model to serve. Received: none')
    self._poll_seconds = poll_seconds
    self._condition = threading.Condition()
    self._stop = threading.Event()
    self._thread = None

  def _add(self, config):
    for key, value in (('name', config.name), ('base_path', config.base_path)):
      if not value:
        raise ValueError(
          f'`{key}` must be given for each model. Received: '
          f'{text_format.MessageToString(config, as_one_line=True)}'
        )
    if config.name in self._models:
      raise ValueError(
        f'`name` must differ between models. Received: {config.name} twice'
      )
    policy = config.model_version_policy
    max_versions, numbers = 1, ()
    kind = policy.WhichOneof('policy_choice')
    if kind == 'latest':
      max_versions = policy.latest.num_versions or 1
    elif kind == 'all':
      max_versions = None
    elif kind == 'specific':
      max_versions, numbers = None, tuple(policy.specific.versions)
    self._models[config.name] = _Model(
      config.name, config.base_path, max_versions, numbers
    )

  @property
  def names(self) -> list[str]:
    """Names of the models."""
    return list(self._models)

  def start(self) -> None:
    """Loads the models, and starts to watch their folders.

    Raises:
      OSError: The folder of a model cannot be read.
      ValueError: No version of a model can be served.
    """
    for model in self._models.values():
      try:
        self._update(model)
      except (OSError, tf.errors.OpError) as e:
        raise OSError(
          f'Cannot read {model.base_path}, the folder of `{model.name}`: '
          f'{file_utils.reason(e)}'
        ) from e
      if not any(e.version for e in model.entries.values()):
        causes = [
          f'version {number}: {entry.error.message}'
          for number, entry in model.entries.items()
        ]
        causes = '; '.join(causes) or 'there is no folder named by a number'
        raise ValueError(
          f'`{model.name}` must have a version that loads, in '
          f'{model.base_path}. Received: {causes}. `python -m '
          'vatt_tf.export_saved_model` writes one.'
        )
    if self._poll_seconds:
      self._thread = threading.Thread(target=self._watch, daemon=True)
      self._thread.start()

  def close(self) -> None:
    """Stops watching the folders."""
    self._stop.set()
    if self._thread is not None:
      self._thread.join()

  def _watch(self):
    while not self._stop.wait(self._poll_seconds):
      for model in self._models.values():
        try:
          self._update(model)
        except (OSError, tf.errors.OpError) as e:
          logging.error('%s: cannot look at its folder: %s', model.name, e)

  def _update(self, model):
    """Loads and unloads versions according to the folder."""
    kept = set()
    for number in reversed(saved_model.find_versions(model.base_path)):
      if model.numbers and number not in model.numbers:
        continue
      if self._ensure(model, number):
        kept.add(number)
      if len(kept) == model.max_versions:
        break
    if not kept:  # the current versions continue to serve
      return
    for number, entry in model.entries.items():
      if entry.state == State.AVAILABLE and number not in kept:
        self._unload(model, number, entry)

  def _ensure(self, model, number):
    """Loads a version unless it is loaded, and returns whether it serves."""
    entry = model.entries.get(number, _Entry())
    if entry.state == State.AVAILABLE:
      return True
    path = os.path.join(model.base_path, str(number))
    files = _fingerprint(path)
    if entry.error is not None and entry.files == files:
      return False
    logging.info('%s version %d: loading %s', model.name, number, path)
    with self._condition:
      model.entries[number] = _Entry(State.LOADING)
    try:
      version = _load(model.name, number, path)
    except Exception as e:  # noqa: BLE001, its files may hold anything
      error = errors.from_exception(e)
      logging.error(
        '%s version %d cannot be loaded: %s', model.name, number, error.message
      )
      with self._condition:
        model.entries[number] = _Entry(State.END, error, files)
      return False
    with self._condition:
      model.entries[number] = _Entry(State.AVAILABLE, version=version)
    logging.info('%s version %d: available', model.name, number)
    return True

  def _unload(self, model, number, entry):
    """Waits until no request uses a version, and frees it."""
    with self._condition:
      entry.state = State.UNLOADING
      self._condition.wait_for(lambda: not entry.num_users)
      entry.version.close()
      entry.version, entry.state = None, State.END
    gc.collect()  # a graph is a circle of references
    logging.info('%s version %d: unloaded', model.name, number)

  @contextlib.contextmanager
  def use(self, name: str, number: int | None = None) -> Iterator[Version]:
    """Yields a version that stays loaded during a `with` statement.

    Args:
      name: Name of a model.
      number: Number of a version, or None for the newest that is available.

    Raises:
      errors.StatusError: NOT_FOUND: there is no such version.
    """
    model = self._find(name, number)
    with self._condition:
      available = [
        n for n, e in model.entries.items() if e.state == State.AVAILABLE
      ]
      chosen = max(available) if number is None else number
      if chosen not in available:
        raise _not_found(
          name, number, f'Available: {", ".join(map(str, sorted(available)))}'
        )
      entry = model.entries[chosen]
      entry.num_users += 1
    try:
      yield entry.version
    finally:
      with self._condition:
        entry.num_users -= 1
        self._condition.notify_all()

  def _find(self, name, number):
    if not name:
      raise errors.invalid('The request must name a model. Received: none')
    if name not in self._models:
      raise _not_found(
        name, number, f'Models: {", ".join(sorted(self._models))}'
      )
    return self._models[name]

  def status(
    self, name: str, number: int | None = None
  ) -> get_model_status_pb2.GetModelStatusResponse:
    """Returns the states of the versions of a model, the newest first.

    Args:
      name: Name of a model.
      number: Number of a version, or None for all.

    Raises:
      errors.StatusError: NOT_FOUND: there is no such version.
    """
    model = self._find(name, number)
    response = get_model_status_pb2.GetModelStatusResponse()
    with self._condition:
      for each in sorted(model.entries, reverse=True):
        if number in (None, each):
          entry = model.entries[each]
          status = response.model_version_status.add()
          status.version, status.state = each, entry.state
          if entry.error is not None:
            status.status.error_code = entry.error.code.value[0]
            status.status.error_message = entry.error.message
    if not response.model_version_status:
      raise _not_found(
        name, number, f'Versions: {", ".join(map(str, model.entries))}'
      )
    return response


def _not_found(name, number, known):
  wanted = f'Specific({name}, {number})'
  if number is None:
    wanted = f'Latest({name})'
  return errors.StatusError(
    grpc.StatusCode.NOT_FOUND,
    f'Servable not found for request: {wanted}. {known}',
  )


def _fingerprint(path):
  """Returns sizes and times of the files of a version.

  A broken version is tried again when they change.
  """
  files = []
  for folder, _, names in tf.io.gfile.walk(path):
    for name in names:
      stat = tf.io.gfile.stat(os.path.join(folder, name))
      files.append((folder, name, stat.length, stat.mtime_nsec))
  return tuple(sorted(files))
