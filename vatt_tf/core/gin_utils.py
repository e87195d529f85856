"""Configuration: flags, search paths, parsing and writing of gin files.

Only this module parses gin. The gin files of vatt_tf are named `gin/…`, also in
includes, and are found from any working directory: in that directory, or else
in the package.
"""

import ast
from collections.abc import Sequence

# gin 0.5.0 looks up `importlib.util` without importing it.
import importlib.util  # noqa: F401
import inspect
import os
import pathlib
import re
from typing import Any

from absl import flags, logging
import gin
import tensorflow as tf

from vatt_tf.core import file_utils, old_config

# The folder that holds `gin`; in a checkout, as a link to its root.
PACKAGE = pathlib.Path(__file__).resolve().parents[1]

_CONFIG = 'config.gin'  # in the directory of a run

_MACRO = re.compile(r'^[A-Za-z_]\w*$')
_DEFINITION = re.compile(r'^\s*([A-Za-z_]\w*)\s*=', re.MULTILINE)


def define_flags() -> None:
  """Defines `--gin_file` and `--gin_param`; called by the mains only."""
  flags.DEFINE_multi_string(
    'gin_file',
    None,
    'Path of a gin file, or the name gin/… of a file that comes with vatt_tf. '
    'May be repeated: later files override earlier ones.',
  )
  flags.DEFINE_multi_string(
    'gin_param',
    [],
    'A binding that overrides the files, such as BATCH_SIZE=8 or '
    'make_optimizer.beta_2=0.98. May be repeated.',
  )


def quiet_logging() -> None:
  """Limits the log to warnings, unless --verbosity is given."""
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)


def _search_roots():
  return [pathlib.Path.cwd(), PACKAGE]


def find_file(name: str) -> str:
  """Finds a gin file.

  Args:
    name: Path, absolute or relative to the working directory or the package, or
      a remote path that `tf.io.gfile` reads.

  Returns:
    The path as a string.

  Raises:
    ValueError: The file does not exist; the message lists the top files.
  """
  name = file_utils.expand(name)
  for candidate in [name, *(str(root / name) for root in _search_roots())]:
    if file_utils.exists(candidate) and not tf.io.gfile.isdir(candidate):
      return candidate
  files = sorted(
    os.path.relpath(path, PACKAGE) for path in (PACKAGE / 'gin').glob('*.gin')
  )
  raise ValueError(
    f'There is no gin file at `{name}`; it was looked for in '
    f'{", ".join(str(root) for root in _search_roots())}. The files that '
    f'come with vatt_tf are: {", ".join(files)}.'
  )


def get_task() -> Any:
  """Returns the task of the run that the parsed gin files describe.

  Returns:
    A task such as `training.pretrain.PretrainTask`, whose `build_model` builds
    the model.

  Raises:
    ValueError: The files describe no run.
  """
  try:
    reference = gin.query_parameter('evaluate.task')
  except ValueError as e:
    raise ValueError(
      'The gin files must describe a run, with `evaluate.task`, as '
      'gin/pretrain_ma_medium.gin and the config.gin of a run do.'
    ) from e
  return reference.scoped_configurable_fn()


def config_beside(checkpoint: str) -> str | None:
  """Returns the gin file that training or conversion wrote with a checkpoint.

  Args:
    checkpoint: The directory of a run, or a checkpoint's prefix in it.

  Returns:
    The path of its `config.gin`.

  Raises:
    ValueError: The gin file does not exist.
  """
  directory = file_utils.expand(checkpoint).rstrip('/')
  if not tf.io.gfile.isdir(directory):
    directory = os.path.dirname(directory)
  if os.path.basename(directory) == 'best':  # use the config of the run
    directory = os.path.dirname(directory)
  path = os.path.join(directory, _CONFIG)
  if not file_utils.exists(path):
    raise ValueError(
      f'There is no {path}, which describes the model of {checkpoint}. Give '
      'the gin file of that model: --gin_file=….'
    )
  return path


def _macros_in(files):
  """The macros that the files, and the files they include, define."""
  macros, waiting, visited = set(), list(files), set()
  while waiting:
    path = waiting.pop()
    if path in visited:
      continue
    visited.add(path)
    with tf.io.gfile.GFile(path) as file:
      text = file.read()
    macros.update(_DEFINITION.findall(text))
    for included in re.findall(r'^\s*include\s+[\'"](.+?)[\'"]', text, re.M):
      waiting.append(find_file(included))
  return macros


def _valid_parameters(name):
  """The parameters of a registered configurable, for error messages."""
  target = gin.config._REGISTRY.get_match(name)  # pylint: disable=protected-access
  function = target.wrapped
  if inspect.isclass(function):
    function = function.__init__
  parameters = inspect.signature(function).parameters
  return [parameter for parameter in parameters if parameter != 'self']


def _explain(error, files, params):
  """The message of gin's error, with the valid choices."""
  text = str(error)
  where = f'Given: gin_file={files}, gin_param={params}.'
  unknown = re.search(r"No configurable matching '([^']+)'", text)
  if unknown:
    names = sorted(
      selector.rsplit('.', 1)[-1]
      for selector, _ in gin.config._REGISTRY.items()  # pylint: disable=protected-access
      if selector.startswith('vatt_tf.')
    )
    return (
      f'There is no configurable named `{unknown.group(1)}`. The names are: '
      f'{", ".join(names)}. {where}'
    )
  parameter = re.search(
    r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", text
  )
  if parameter:
    name, unknown_name = parameter.groups()
    return (
      f'`{name}` has no parameter `{unknown_name}`. Its parameters are: '
      f'{", ".join(_valid_parameters(name))}. {where}'
    )
  return f'The configuration cannot be read: {text}\n{where}'


def _check_sizes(params):
  """Raises ValueError if a binding changes a size that no encoder uses."""
  references = {
    reference.scoped_selector
    for reference in gin.config.iterate_references(gin.config._CONFIG)  # pylint: disable=protected-access
  }
  for binding in params:
    size = re.match(r'\s*((?:\w+/)*Size)\.\w+\s*=', binding)
    if size and size[1] not in references:
      owner = {
        'video/Size': 'video/PatchTower',
        'audio/Size': 'audio/PatchTower',
        'text/Size': 'TextTower',
      }.get(size[1], 'share_encoder')
      raise ValueError(
        f'`{binding}` would have no effect, because the gin files give the '
        'encoder a complete size, such as %MEDIUM. Bind the size too, such as '
        f'{owner}.size=@{size[1]}(), and all numbers of {size[1]}.'
      )


def parse(
  gin_files: Sequence[str] | None, gin_params: Sequence[str] | None = ()
) -> None:
  """Parses gin files and bindings, and replaces the previous configuration.

  Args:
    gin_files: Paths; later files override earlier ones.
    gin_params: Bindings, `NAME=value` for a macro that one of the files
      defines, or `[scope/]configurable.parameter=value`.

  Raises:
    ValueError: A file or a name does not exist; the message lists the valid
      ones.
  """
  gin_files, gin_params = list(gin_files or []), list(gin_params or [])
  paths = [find_file(name) for name in gin_files]
  macros = _macros_in(paths)
  for binding in gin_params:
    name, equals, _ = binding.partition('=')
    if not equals:
      raise ValueError(
        f'`gin_param` must look like NAME=value. Received: gin_param={binding}'
      )
    if _MACRO.match(name.strip()) and name.strip() not in macros:
      raise ValueError(
        f'No given gin file defines the macro `{name.strip()}`, so setting it '
        f'would have no effect. The macros are: {", ".join(sorted(macros))}.'
      )
  gin.clear_config()
  for root in _search_roots():
    gin.add_config_file_search_path(str(root))
  # Use only this reader: gin's reader for Python packages logs missing files.
  gin.config._FILE_READERS[:] = [(tf.io.gfile.GFile, tf.io.gfile.exists)]  # pylint: disable=protected-access
  try:
    for path in paths:
      with tf.io.gfile.GFile(path) as file:
        text = file.read()
      if old_config.is_old(text):
        gin.parse_config(old_config.upgrade(text))
      else:
        gin.parse_config_file(path)
    file_values = _values_of_macros(gin_params)
    gin.parse_config_files_and_bindings([], gin_params)
  except (ValueError, SyntaxError, OSError, tf.errors.OpError) as error:
    raise ValueError(_explain(error, gin_files, gin_params)) from error
  for name, value in _values_of_macros(gin_params).items():
    _check_kind(name, file_values[name], value)
  _check_sizes(gin_params)
  _expand_paths()


def _expand_paths():
  """Replaces `~/` at the start of all strings by the home directory."""
  for parameters in gin.config._CONFIG.values():  # pylint: disable=protected-access
    for name, value in parameters.items():
      if isinstance(value, str) and value.startswith('~/'):
        parameters[name] = file_utils.expand(value)


def parse_binding(binding: str) -> tuple[str, Any]:
  """Returns the name of a binding, and its value if it is a literal or None."""
  name, _, text = binding.partition('=')
  try:
    return name.strip(), ast.literal_eval(text.strip())
  except (ValueError, SyntaxError):
    return name.strip(), None


def _values_of_macros(bindings):
  """The current values of the macros that bindings set, by name."""
  names = {binding.partition('=')[0].strip() for binding in bindings}
  return {
    name: gin.query_parameter(f'%{name}')
    for name in names
    if _MACRO.match(name)
  }


def _check_kind(name, file_value, value):
  """Raises ValueError if a macro's value has another type than in the files.

  Args:
    name: Name of the macro.
    file_value: Value in the gin files.
    value: Value after the bindings.
  """
  kinds = (
    (bool, (bool,), 'True or False'),
    (int, (int, type(None)), 'a whole number'),
    (float, (int, float, type(None)), 'a number'),
    (str, (str, list, tuple, type(None)), 'a string in quotes'),
  )
  for kind, allowed, meaning in kinds:
    if not isinstance(file_value, kind):
      continue
    is_unexpected_bool = isinstance(value, bool) and kind is not bool
    is_plain = isinstance(
      value, bool | int | float | str | list | tuple | dict | None
    )
    if is_plain and (is_unexpected_bool or not isinstance(value, allowed)):
      raise ValueError(
        f'The macro {name} must be {meaning}, such as {name}={file_value!r}. '
        f'Received: {name}={value!r}'
      )
    return


def bind(name: str, value: Any) -> None:
  """Binds a parameter, and overrides the parsed files.

  Args:
    name: Name of the parameter, such as `TextTower.word_vectors`.
    value: Value of the parameter.
  """
  with gin.unlock_config():
    gin.bind_parameter(name, value)


def bind_default(name: str, value: Any) -> None:
  """Binds a parameter, unless the parsed files already bind it.

  Args:
    name: Name of the parameter, such as `TextConfig.kind`.
    value: Value of the parameter.
  """
  try:
    gin.query_parameter(name)
  except ValueError:
    bind(name, value)


def bind_no_word_vectors() -> None:
  """Binds the files of word vectors to None, so that a model reads none."""
  for tower in ('TextTower', 'WordTower'):
    bind(f'{tower}.word_vectors', None)


def write_config(model_dir: str) -> None:
  """Writes the parsed configuration to `model_dir/config.gin`."""
  file_utils.write_text(os.path.join(model_dir, _CONFIG), gin.config_str())


def write_operative_config(model_dir: str) -> None:
  """Writes the bindings in use to `model_dir/operative_config.gin`."""
  file_utils.write_text(
    os.path.join(model_dir, 'operative_config.gin'), gin.operative_config_str()
  )
