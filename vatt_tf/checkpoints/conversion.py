"""Weights of other programs' files, moved into a model, each accounted for.

A *source* is an opened file: names, shapes, and a way to read one array. A
*plan* says for each variable of a model which arrays of the source make it.
`released_vatt`, `t5` and `vit` make plans; this module opens files, checks and
applies plans, and writes what came of it.

Targets are named as the variables themselves: `variable.name` without `:0`,
such as `vatt/video_encoder/layer_0/attention/q/kernel` (`target_name`).
"""

import collections
from collections.abc import Callable
import dataclasses
import hashlib
import json
import math
import os
import re
import zipfile

import numpy as np
import tensorflow as tf

from vatt_tf.checkpoints import ema, folders, weight_files
from vatt_tf.core import file_utils
from vatt_tf.layers import text_embedding

_ATTRIBUTE = '/.ATTRIBUTES/VARIABLE_VALUE'
_WEIGHT_FILES = ('.safetensors', '.safetensors.index.json', '.npz')
_DOWNLOAD_AGAIN = 'Download or copy it again, and compare its size.'


class Source:
  """An opened file of arrays, of which none has been read.

  Attributes:
    path: where it lies.
    shapes: dictionary from the name of each array to its shape, a tuple. Names
      of TensorFlow's object checkpoints come without
      `/.ATTRIBUTES/VARIABLE_VALUE`.
    config: dictionary, what `config.json` beside it says; empty without one.
  """

  def __init__(self, path, shapes, read, config, files):
    self.path = path
    self.shapes = shapes
    self.config = config
    self._read = read
    self._files = files

  def describe_files(self):
    """What the files are: list of dictionaries of name, size and SHA-256.

    Of a TensorFlow checkpoint the index alone is hashed, since it holds a
    checksum of each array.
    """
    described = []
    for path in self._files:
      entry = {
        'name': os.path.basename(path),
        'bytes': tf.io.gfile.stat(path).length,
      }
      if not folders.is_data(path):
        digest = hashlib.sha256()
        with tf.io.gfile.GFile(path, 'rb') as file:
          while block := file.read(2**24):
            digest.update(block)
        entry['sha256'] = digest.hexdigest()
      described.append(entry)
    return described

  def read(self, name):
    """Reads one array.

    Args:
      name: one of `shapes`.

    Returns:
      NumPy array.

    Raises:
      ValueError: the file is damaged or incomplete.
    """
    try:
      return self._read(name)
    except (
      tf.errors.OpError,
      OSError,
      IndexError,
      EOFError,
      ValueError,
      zipfile.BadZipFile,
    ) as e:
      # TensorFlow's C++ reader raises IndexError beyond the end of a file.
      raise ValueError(
        f'`{name}` cannot be read from {self.path}: the file is damaged or '
        f'only a part of it ({file_utils.reason(e)}). {_DOWNLOAD_AGAIN}'
      ) from e


def strip_attribute(name):
  """A name in a TensorFlow object checkpoint, as `Source.shapes` has it."""
  return name.removesuffix(_ATTRIBUTE)


def open_source(path):
  """Opens a checkpoint of any of the formats, without reading its arrays.

  Args:
    path: the prefix of a TensorFlow checkpoint (`…/ckpt-500000`, or the name
      of one of its files), or a folder with one; or what
      `weight_files.open_weights` takes: a `.safetensors` or `.npz` file, or a
      folder of Hugging Face's.

  Returns:
    A `Source`.

  Raises:
    ValueError: there is nothing, no checkpoint, or a part of one.
  """
  path = os.fspath(path)
  prefix = folders.strip_file(path)
  is_folder = tf.io.gfile.isdir(path)
  if is_folder:
    prefix = folders.newest(path) or prefix
  if file_utils.exists(prefix + folders.INDEX):
    return _open_tensorflow(prefix)
  if not is_folder and not path.endswith(_WEIGHT_FILES):
    folder, name = os.path.split(prefix)
    others = [
      os.path.join(folder, other)
      for other in file_utils.list_folder(folder)
      if other.startswith(name)
    ]
    raise ValueError(
      f'There is no checkpoint at {path}: expected {prefix}{folders.INDEX} '
      'with its data beside it, a .safetensors or a .npz file. '
      f'There is: {", ".join(others) or "nothing of this name"}.'
    )
  opened = weight_files.open_weights(path)
  files = (
    [path]
    if not is_folder
    else [
      os.path.join(path, name)
      for name in file_utils.list_folder(path)
      if name.endswith('.safetensors')
    ]
  )
  return Source(path, opened.shapes, opened.read, opened.config, files)


def _open_tensorflow(path):
  reader = folders.open_reader(path)
  shapes = reader.get_variable_to_shape_map()
  names = {
    strip_attribute(name): name
    for name in shapes
    if name != folders.OBJECT_GRAPH
  }
  return Source(
    path,
    {name: tuple(shapes[full]) for name, full in sorted(names.items())},
    lambda name: reader.get_tensor(names[name]),
    {},
    folders.files_of(path),
  )


@dataclasses.dataclass(frozen=True)
class Assignment:
  """How one variable of the model gets its value.

  Attributes:
    target: `variable.name` without `:0`, as `target_name` gives it, such as
      `vatt/text_encoder/layer_0/attention/q/kernel`.
    sources: names of the arrays that make it.
    how: empty where the array is taken as it is; else what happens to it, in
      words: `transposed`, `kernel inflated from 16x16 to 4x16x16`.
    make: takes `read`, a function from a source's name to its array, and
      returns the value. Called when its turn comes, and before that once with
      a `read` that gives zeros, to learn the shape.
  """

  target: str
  sources: tuple[str, ...]
  how: str
  make: Callable[[Callable[[str], np.ndarray]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Plan:
  """What becomes of every array of a source and every variable of a model.

  Attributes:
    assignments: list of `Assignment`.
    ignored: dictionary, name of an array → why nothing takes it.
    missing: dictionary, target → why it has no source. An error, unless parts
      are allowed.
    new: dictionary, target → why it keeps its initial value, by design.
    notes: list of strings that the report shows. A `make` may append to it what
      it measured.
  """

  assignments: list[Assignment]
  ignored: dict[str, str] = dataclasses.field(default_factory=dict)
  missing: dict[str, str] = dataclasses.field(default_factory=dict)
  new: dict[str, str] = dataclasses.field(default_factory=dict)
  notes: list[str] = dataclasses.field(default_factory=list)


def copy(target, source, how='', change=None):
  """An `Assignment` of one array to one variable.

  Args:
    target: string.
    source: string.
    how: string, empty without `change`.
    change: function from the array to the value, or None: as it is.

  Returns:
    `Assignment`.
  """

  def make(read):
    value = read(source)
    return value if change is None else change(value)

  return Assignment(target, (source,), how, make)


def target_name(variable):
  """The name of a model's variable: `variable.name` without `:0`."""
  return ema.weight_name(variable.name)


def target_variables(model):
  """The variables of a model that a plan must account for.

  Args:
    model: a built model or layer.

  Returns:
    Dictionary from `target_name` to the variable.

  Raises:
    ValueError: two variables have one name.
  """
  found = {}
  for variable in model.variables:
    name = target_name(variable)
    if name in found:
      raise ValueError(
        f'Two variables of the model are named {name}. Name its layers apart.'
      )
    found[name] = variable
  return found


class ConversionError(ValueError):
  """A plan does not fit; `report` says all that is wrong."""

  def __init__(self, message, report):
    super().__init__(message)
    self.report = report


# What can be wrong with a row of the report, in the order of the message.
_ERRORS = ('misshapen', 'missing', 'unused')


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of the report.

  Attributes:
    status: `matched`, `transformed`, `new`, `ignored`, or an error: `missing`
      (a variable without a source), `misshapen`, `unused` (an array that
      nothing takes).
    target: name of the model's variable, or None.
    shape: of it, or None.
    sources: tuple of names.
    source_shapes: tuple of shapes.
    how: what was done, or why nothing was.
  """

  status: str
  target: str | None
  shape: tuple | None
  sources: tuple
  source_shapes: tuple
  how: str


@dataclasses.dataclass(frozen=True)
class Report:
  """What became of every array and every variable.

  Attributes:
    rows: list of `Row`.
    notes: list of strings.
  """

  rows: list[Row]
  notes: list[str]

  def count(self, status):
    """How many rows have a status."""
    return sum(row.status == status for row in self.rows)

  def as_json(self):
    """The report as a dictionary that json takes."""
    return {
      'counts': dict(collections.Counter(row.status for row in self.rows)),
      'notes': self.notes,
      'variables': [dataclasses.asdict(row) for row in self.rows],
    }

  def format(self):
    """The report as text; layers that differ in their number share a line."""
    lines = {}
    for row in self.rows:
      sources = ', '.join(
        f'{name} {_shape(shape)}'
        for name, shape in zip(row.sources, row.source_shapes, strict=True)
      )
      target = f'{row.target} {_shape(row.shape)}' if row.target else '-'
      line = f'{target} <- {sources}'
      key = re.sub(r'(?<=[_/.])\d+(?=[/.])', '*', line)
      lines.setdefault((row.status, key, row.how), []).append(line)
    text = []
    for (status, key, how), same in lines.items():
      line = same[0] if len(same) == 1 else f'{key} ({len(same)}x)'
      text.append(f'{status:11} {line}{": " + how if how else ""}')
    counts = collections.Counter(row.status for row in self.rows)
    total = ', '.join(f'{number} {status}' for status, number in counts.items())
    return '\n'.join([*text, *self.notes, f'In all: {total}.'])


def _shape(shape):
  return 'x'.join(map(str, shape)) if shape else 'scalar'


def check(plan, model, shapes):
  """Compares a plan with the source and the model, without reading anything.

  Args:
    plan: `Plan`.
    model: a built model or layer.
    shapes: dictionary from the source's names to shapes.

  Returns:
    `Report`; a row of the status `missing`, `misshapen` or `unused` is an
    error.

  Raises:
    ValueError: the plan names what neither has, or one target twice.
  """
  variables = target_variables(model)
  rows, used, named = [], set(), collections.Counter()

  def zeros(name):
    return np.broadcast_to(np.float32(0), shapes[name])

  for assignment in plan.assignments:
    target, sources = assignment.target, assignment.sources
    if target not in variables or not set(sources) <= set(shapes):
      raise ValueError(f'The plan names what is not there: {assignment}')
    named[target] += 1
    used.update(sources)
    expected = tuple(variables[target].shape)
    got = np.shape(assignment.make(zeros))
    status = 'transformed' if assignment.how else 'matched'
    how = assignment.how
    if got != expected:
      status, how = 'misshapen', f'comes {_shape(got)}'
    rows.append(
      Row(
        status,
        target,
        expected,
        sources,
        tuple(shapes[name] for name in sources),
        how,
      )
    )
  without = {**dict.fromkeys(variables, 'nothing was planned for it')}
  for target in named:
    without.pop(target)
  without.update(plan.missing)
  for status, reasons in (('new', plan.new), ('missing', without)):
    for target, why in reasons.items():
      if target not in variables or target in named:
        raise ValueError(f'The plan has {target} twice, or it is not there.')
      if status == 'new' or target not in plan.new:
        shape = tuple(variables[target].shape)
        rows.append(Row(status, target, shape, (), (), why))
  repeated = [target for target, times in named.items() if times > 1]
  if repeated or not set(plan.ignored) <= set(shapes):
    raise ValueError(f'The plan has targets twice, or unknown: {repeated}')
  for name, shape in shapes.items():
    if name not in used:
      why = plan.ignored.get(name)
      status = 'unused' if why is None else 'ignored'
      rows.append(
        Row(status, None, None, (name,), (shape,), why or 'nothing takes it')
      )
  # The plan's list goes on growing while values are made.
  return Report(rows, plan.notes)


def _advise(row):
  """The end of the message of `apply`, without its `advise`."""
  del row
  return (
    'Use the gin file of this model, or --allow_partial to take what fits and '
    'leave the rest at its initial values.'
  )


def apply(plan, model, source, allow_partial=False, advise=_advise):
  """Gives a model the values of a source.

  All names and shapes are compared first. One array is in memory at a time,
  beside the model.

  Args:
    plan: `Plan`.
    model: a built model or layer; call this in its strategy's scope.
    source: `Source`.
    allow_partial: leave variables that are missing or misshapen as they are,
      and arrays that nothing takes unused.
    advise: function from the first `Row` that is wrong to the sentence that
      says what to do.

  Returns:
    `Report`.

  Raises:
    ConversionError: something is missing, misshapen or unused.
    ValueError: the source cannot be read; values before the damage are the
      model's already.
  """
  report = check(plan, model, source.shapes)
  wrong = [
    row for status in _ERRORS for row in report.rows if row.status == status
  ]
  if wrong and not allow_partial:
    raise ConversionError(_describe(wrong, source, advise), report)
  skipped = {row.target for row in wrong}
  variables, filled = target_variables(model), set()
  for assignment in plan.assignments:
    if assignment.target in skipped:
      continue
    value = np.asarray(assignment.make(source.read))
    if not np.isfinite(value).all():
      raise ValueError(
        f'{", ".join(assignment.sources)} in {source.path} must hold finite '
        f'numbers. {_DOWNLOAD_AGAIN}'
      )
    variable = variables[assignment.target]
    variable.assign(value.astype(variable.dtype.as_numpy_dtype, copy=False))
    filled.add(assignment.target)
  mark_tables_filled(model, filled)
  return report


def mark_tables_filled(model, targets=None):
  """Lets word tables that got their values be frozen from now on.

  Args:
    model: a built model or layer.
    targets: set of the names of variables that got values; None: all did.
  """
  for layer in model.submodules:
    if isinstance(layer, text_embedding.TextEmbedding):
      if targets is None or target_name(layer.embeddings) in targets:
        layer.mark_filled()


def _describe(wrong, source, advise):
  """The message of an error: the first row, and how many others there are."""
  row = wrong[0]
  if row.status == 'misshapen':
    first = (
      f'{row.target} is {_shape(row.shape)}, and of {", ".join(row.sources)} '
      f'{row.how}'
    )
  elif row.status == 'missing':
    first = f'{row.target} ({_shape(row.shape)}) has no source: {row.how}'
  else:
    first = f'nothing takes {row.sources[0]} ({_shape(row.source_shapes[0])})'
  counts = collections.Counter(row.status for row in wrong)
  total = ', '.join(
    f'{counts[status]} {status}' for status in _ERRORS if counts[status]
  )
  return (
    f'{source.path} does not fit the model: {first}; {len(wrong) - 1} others '
    f'({total} in all). {advise(row)}'
  )


def write_checkpoint(model, output, origin, config, report):
  """Writes a checkpoint as training does, and where it comes from.

  Args:
    model: a built `tf_keras.Model`.
    output: a folder. `ckpt-0` is written last, so that a folder with a
      checkpoint has all the rest: `origin.json`, `config.gin`, `report.json`.
    origin: dictionary for json.
    config: string, the gin bindings that describe the model.
    report: `Report`.

  Returns:
    The prefix of the checkpoint.

  Raises:
    ValueError: there is a checkpoint already.
  """
  check_output(output)
  for name, text in (
    ('config.gin', config),
    ('report.json', json.dumps(report.as_json(), indent=1) + '\n'),
    ('origin.json', json.dumps(origin, indent=2) + '\n'),
  ):
    file_utils.write_text(os.path.join(output, name), text)
  return folders.save(
    tf.train.Checkpoint(model=model), output, step=0, max_to_keep=1
  )


def check_output(output):
  """Raises ValueError if a folder holds a checkpoint."""
  prefixes = folders.find(output)
  if prefixes:
    raise ValueError(
      f'`output` must be a folder without a checkpoint, so that none is lost. '
      f'Received: output={output}, with {", ".join(prefixes)}'
    )


def origin_of(source, kind, report):
  """What a converted checkpoint says of its origin.

  Args:
    source: `Source`.
    kind: string.
    report: `Report`.

  Returns:
    Dictionary for json.
  """
  return {
    'source': kind,
    'path': os.path.abspath(source.path),
    'files': source.describe_files(),
    'parameters': sum(
      math.prod(row.shape)
      for row in report.rows
      if row.status in ('matched', 'transformed')
    ),
    'notes': report.notes,
  }
