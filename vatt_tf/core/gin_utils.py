"""Configuration: flags, search paths, parsing and writing of gin files.

This is the only place that parses gin. The gin files of vatt_tf are named
`gin/…`, also where one includes another, and found from any working directory:
in that directory, or else in the package.
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

# What holds the folder `gin`: in a checkout by a link to its root.
PACKAGE = pathlib.Path(__file__).resolve().parents[1]

_CONFIG = 'config.gin'  # in the directory of a run

_MACRO = re.compile(r'^[A-Za-z_]\w*$')
_DEFINITION = re.compile(r'^\s*([A-Za-z_]\w*)\s*=', re.MULTILINE)


def define_flags() -> None:
  """Defines `--gin_file` and `--gin_param`; called by the mains only."""
  flags.DEFINE_multi_string(
    'gin_file',
    None,
    'A gin file, by path from here or, as gin/…, of those that come with '
    'vatt_tf. May be given several times: later files override earlier ones.',
  )
  flags.DEFINE_multi_string(
    'gin_param',
    [],
    'A binding that overrides the files, such as BATCH_SIZE=8 or '
    'make_optimizer.beta_2=0.98. May be given several times.',
  )


def quiet_logging() -> None:
  """Keeps the log to warnings, unless --verbosity says otherwise."""
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)


def _search_roots():
  return [pathlib.Path.cwd(), PACKAGE]


def find_file(name: str) -> str:
  """Finds a gin file.

  Args:
    name: A path, absolute or from the working directory or from the package, or
      a remote path that `tf.io.gfile` reads.

  Returns:
    The path as a string.

  Raises:
    ValueError: When there is no such file; the message lists the top files.
  """
  name = file_utils.expand(name)
  for candidate in [name, *(str(root / name) for root in _search_roots())]:
    if file_utils.exists(candidate) and not tf.io.gfile.isdir(candidate):
      return candidate
  known = sorted(
    os.path.relpath(path, PACKAGE) for path in (PACKAGE / 'gin').glob('*.gin')
  )
  raise ValueError(
    f'There is no gin file at `{name}`; it was looked for in '
    f'{", ".join(str(root) for root in _search_roots())}. The files that '
    f'come with vatt_tf are: {", ".join(known)}.'
  )


def get_task() -> Any:
  """The task of the run that the parsed gin files describe.

  Returns:
    Such as a `training.pretrain.PretrainTask`; its `build_model` makes the
    model.

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
  """The gin file that training or conversion wrote beside a checkpoint.

  Args:
    checkpoint: The directory of a run, or a checkpoint's prefix in it.

  Returns:
    The path of its `config.gin`.

  Raises:
    ValueError: When there is none.
  """
  directory = file_utils.expand(checkpoint).rstrip('/')
  if not tf.io.gfile.isdir(directory):
    directory = os.path.dirname(directory)
  if os.path.basename(directory) == 'best':  # of the run around it
    directory = os.path.dirname(directory)
  path = os.path.join(directory, _CONFIG)
  if not file_utils.exists(path):
    raise ValueError(
      f'There is no {path}, which would say what model {checkpoint} belongs '
      'to. Give the gin file of that model: --gin_file=….'
    )
  return path


def _macros_in(files):
  """The macros that the files, and the files they include, define."""
  macros, waiting, seen = set(), list(files), set()
  while waiting:
    path = waiting.pop()
    if path in seen:
      continue
    seen.add(path)
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
  """Makes gin's error name the valid choices."""
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
    name, wrong = parameter.groups()
    return (
      f'`{name}` has no parameter `{wrong}`. Its parameters are: '
      f'{", ".join(_valid_parameters(name))}. {where}'
    )
  return f'The configuration cannot be read: {text}\n{where}'


def _check_sizes(params):
  """Raises ValueError where a size is changed that no encoder takes."""
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
        f'`{binding}` would do nothing: the gin files give the encoder a whole '
        f'size, such as %MEDIUM. Bind the size that is to change too, such as '
        f'{owner}.size=@{size[1]}(), and all numbers of {size[1]}.'
      )


def parse(
  gin_files: Sequence[str] | None, gin_params: Sequence[str] | None = ()
) -> None:
  """Parses gin files and bindings, replacing what was parsed before.

  Args:
    gin_files: List of paths; later files override earlier ones.
    gin_params: List of bindings, `NAME=value` for a macro that one of the files
      defines or `[scope/]configurable.parameter=value`.

  Raises:
    ValueError: For a file that does not exist, or a name that nothing has;
      the message lists the valid ones.
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
        f'No gin file given defines the macro `{name.strip()}`, so that '
        f'setting it would do nothing. The macros are: '
        f'{", ".join(sorted(macros))}.'
      )
  gin.clear_config()
  for root in _search_roots():
    gin.add_config_file_search_path(str(root))
  # These alone: that of gin for Python packages logs what it does not find.
  gin.config._FILE_READERS[:] = [(tf.io.gfile.GFile, tf.io.gfile.exists)]  # pylint: disable=protected-access
  try:
    for path in paths:
      with tf.io.gfile.GFile(path) as file:
        text = file.read()
      if old_config.is_old(text):
        gin.parse_config(old_config.upgrade(text))
      else:
        gin.parse_config_file(path)
    of_files = _values_of_macros(gin_params)
    gin.parse_config_files_and_bindings([], gin_params)
  except (ValueError, SyntaxError, OSError, tf.errors.OpError) as error:
    raise ValueError(_explain(error, gin_files, gin_params)) from error
  for name, value in _values_of_macros(gin_params).items():
    _check_kind(name, of_files[name], value)
  _check_sizes(gin_params)
  _expand_paths()


def _expand_paths():
  """Makes the home directory of `~/` in front of all strings."""
  for parameters in gin.config._CONFIG.values():  # pylint: disable=protected-access
    for name, value in parameters.items():
      if isinstance(value, str) and value.startswith('~/'):
        parameters[name] = file_utils.expand(value)


def parse_binding(binding: str) -> tuple[str, Any]:
  """The name of a binding, and its value if that is a literal, else None."""
  name, _, text = binding.partition('=')
  try:
    return name.strip(), ast.literal_eval(text.strip())
  except (ValueError, SyntaxError):
    return name.strip(), None


def _values_of_macros(bindings):
  """The values, as yet, of the macros that bindings set, by their names."""
  names = {binding.partition('=')[0].strip() for binding in bindings}
  return {
    name: gin.query_parameter(f'%{name}')
    for name in names
    if _MACRO.match(name)
  }


def _check_kind(name, of_files, value):
  """Raises ValueError if a macro's value is of another kind than in the files.

  Args:
    name: Of the macro.
    of_files: Its value in the gin files.
    value: What a binding makes of it.
  """
  kinds = (
    (bool, (bool,), 'True or False'),
    (int, (int, type(None)), 'a whole number'),
    (float, (int, float, type(None)), 'a number'),
    (str, (str, list, tuple, type(None)), 'a string in quotes'),
  )
  for kind, allowed, meaning in kinds:
    if not isinstance(of_files, kind):
      continue
    is_other_bool = isinstance(value, bool) and kind is not bool
    is_plain = isinstance(
      value, bool | int | float | str | list | tuple | dict | None
    )
    if is_plain and (is_other_bool or not isinstance(value, allowed)):
      raise ValueError(
        f'The macro {name} must be {meaning}, such as {name}={of_files!r}. '
        f'Received: {name}={value!r}'
      )
    return


def bind(name: str, value: Any) -> None:
  """Binds a parameter, whatever was parsed.

  Args:
    name: Such as `TextTower.word_vectors`.
    value: What it becomes.
  """
  with gin.unlock_config():
    gin.bind_parameter(name, value)


def bind_default(name: str, value: Any) -> None:
  """Binds a parameter, unless what was parsed binds it already.

  Args:
    name: Such as `TextConfig.kind`.
    value: What it becomes.
  """
  try:
    gin.query_parameter(name)
  except ValueError:
    bind(name, value)


def write_config(model_dir: str) -> None:
  """Writes what was parsed to `model_dir/config.gin`."""
  file_utils.write_text(os.path.join(model_dir, _CONFIG), gin.config_str())


def write_operative_config(model_dir: str) -> None:
  """Writes what was really used to `model_dir/operative_config.gin`."""
  file_utils.write_text(
    os.path.join(model_dir, 'operative_config.gin'), gin.operative_config_str()
  )
