"""Applies a plan to a model, and reports how every variable was mapped."""

import collections
from collections.abc import Callable, Mapping
import dataclasses
import json
import math
import os
import re
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.checkpoints import folders, plans, weight_sources
from vatt_tf.core import file_utils
from vatt_tf.layers import text_embedding


class ConversionError(ValueError):
  """A plan does not fit a model; `report` lists everything that is wrong."""

  def __init__(self, message: str, report: 'Report | None'):
    super().__init__(message)
    self.report = report


# The errors of a row, in the order in which the message counts them.
_ERRORS = ('misshapen', 'missing', 'unused')


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of the report.

  Attributes:
    status: `matched`, `transformed`, `new`, `ignored`, or an error: `missing`
      (a variable without a source), `misshapen`, `unused` (an array that no
      variable uses).
    target: Name of the model's variable, or None.
    shape: Shape of the variable, or None.
    sources: Names of the arrays.
    source_shapes: Shapes of the arrays.
    how: Description of the change, or the reason for the status.
  """

  status: str
  target: str | None
  shape: tuple | None
  sources: tuple
  source_shapes: tuple
  how: str


@dataclasses.dataclass(frozen=True)
class Report:
  """How every array and every variable was mapped.

  Attributes:
    rows: A row for each variable and each unused array.
    notes: Lines for the user.
  """

  rows: list[Row]
  notes: list[str]

  def count(self, status: str) -> int:
    """Returns the number of rows that have a status."""
    return sum(row.status == status for row in self.rows)

  def as_json(self) -> dict[str, Any]:
    """Returns the report as a dictionary for JSON."""
    return {
      'counts': dict(collections.Counter(row.status for row in self.rows)),
      'notes': self.notes,
      'variables': [dataclasses.asdict(row) for row in self.rows],
    }

  def format(self) -> str:
    """Returns the report as text; layers that differ in number share a line."""
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


def check(
  plan: plans.Plan, model: tf_keras.Model, shapes: Mapping[str, tuple[int, ...]]
) -> Report:
  """Compares a plan with the source and the model, without reading anything.

  Args:
    plan: Plan of the mapping.
    model: A built model or layer.
    shapes: Shapes of the source's arrays by name.

  Returns:
    `Report`; a row of the status `missing`, `misshapen` or `unused` is an
    error.

  Raises:
    ValueError: The plan has an unknown name, or one target twice.
  """
  variables = plans.target_variables(model)
  rows, used, named = [], set(), collections.Counter()

  def zeros(name):
    return np.broadcast_to(np.float32(0), shapes[name])

  for assignment in plan.assignments:
    target, sources = assignment.target, assignment.sources
    if target not in variables or not set(sources) <= set(shapes):
      raise ValueError(
        f'The plan has an unknown target or source: {assignment}'
      )
    named[target] += 1
    used.update(sources)
    expected = tuple(variables[target].shape)
    made_shape = np.shape(assignment.make(zeros))
    status = 'transformed' if assignment.how else 'matched'
    how = assignment.how
    if made_shape != expected:
      status, how = 'misshapen', f'comes {_shape(made_shape)}'
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
        raise ValueError(
          f'The plan has the target {target} twice, or it does not exist.'
        )
      if status == 'new' or target not in plan.new:
        shape = tuple(variables[target].shape)
        rows.append(Row(status, target, shape, (), (), why))
  repeated = [target for target, times in named.items() if times > 1]
  if repeated or not set(plan.ignored) <= set(shapes):
    raise ValueError(
      f'The plan has the targets {repeated} twice, or ignores arrays that do '
      'not exist.'
    )
  for name, shape in shapes.items():
    if name not in used:
      why = plan.ignored.get(name)
      status = 'unused' if why is None else 'ignored'
      rows.append(
        Row(status, None, None, (name,), (shape,), why or 'nothing takes it')
      )
  # This is the plan's own list, to which `make` may append notes later.
  return Report(rows, plan.notes)


def _advise(row):
  """The default advice at the end of the message of `apply`."""
  del row
  return (
    'Use the gin file of this model, or --allow_partial to import only the '
    'parts that fit and leave the rest at their initial values.'
  )


def apply(
  plan: plans.Plan,
  model: tf_keras.Model,
  source: weight_sources.Source,
  allow_partial: bool = False,
  advise: Callable[[Row], str] = _advise,
) -> Report:
  """Assigns the values of a source to a model.

  All names and shapes are compared first. Besides the model, only one array is
  in memory at a time.

  Args:
    plan: Plan of the mapping.
    model: A built model or layer. Call this in its strategy's scope.
    source: The opened checkpoint.
    allow_partial: Whether to leave variables that are missing or misshapen
      unchanged, and to allow unused arrays.
    advise: Function from the first `Row` that is wrong to a sentence that tells
      what to do.

  Returns:
    `Report`.

  Raises:
    ConversionError: Something is missing, misshapen or unused.
    ValueError: The source cannot be read. Values before the damage are already
      assigned.
  """
  report = check(plan, model, source.shapes)
  faulty_rows = [
    row for status in _ERRORS for row in report.rows if row.status == status
  ]
  if faulty_rows and not allow_partial:
    raise ConversionError(_describe(faulty_rows, source, advise), report)
  skipped = {row.target for row in faulty_rows}
  variables, filled = plans.target_variables(model), set()
  for assignment in plan.assignments:
    if assignment.target in skipped:
      continue
    value = np.asarray(assignment.make(source.read))
    if not np.isfinite(value).all():
      raise ValueError(
        f'{", ".join(assignment.sources)} in {source.path} must hold finite '
        f'numbers. {weight_sources.DOWNLOAD_AGAIN}'
      )
    if assignment.target.endswith('/moving_variance') and (value < 0).any():
      raise ValueError(
        f'{", ".join(assignment.sources)} in {source.path} must not be '
        f'negative: it is a variance. {weight_sources.DOWNLOAD_AGAIN}'
      )
    variable = variables[assignment.target]
    variable.assign(value.astype(variable.dtype.as_numpy_dtype, copy=False))
    filled.add(assignment.target)
  mark_tables_filled(model, filled)
  return report


def mark_tables_filled(
  model: tf_keras.Model, targets: set[str] | None = None
) -> None:
  """Marks word tables that were assigned values, so that they can be frozen.

  Args:
    model: A built model or layer.
    targets: Names of the variables that were assigned. None means all.
  """
  for layer in model.submodules:
    if isinstance(layer, text_embedding.TextEmbedding):
      if targets is None or plans.target_name(layer.embeddings) in targets:
        layer.mark_filled()


def _describe(faulty_rows, source, advise):
  """The message of an error: the first row, and the number of others."""
  row = faulty_rows[0]
  if row.status == 'misshapen':
    first = (
      f'{row.target} is {_shape(row.shape)}, and of {", ".join(row.sources)} '
      f'{row.how}'
    )
  elif row.status == 'missing':
    first = f'{row.target} ({_shape(row.shape)}) has no source: {row.how}'
  else:
    first = f'nothing takes {row.sources[0]} ({_shape(row.source_shapes[0])})'
  counts = collections.Counter(row.status for row in faulty_rows)
  total = ', '.join(
    f'{counts[status]} {status}' for status in _ERRORS if counts[status]
  )
  return (
    f'{source.path} does not fit the model: {first}; '
    f'{len(faulty_rows) - 1} others ({total} in all). {advise(row)}'
  )


def write_checkpoint(
  model: tf_keras.Model,
  output: str,
  origin: Mapping[str, Any],
  config: str,
  report: Report,
) -> str:
  """Writes a checkpoint as training does, with a description of its origin.

  Args:
    model: A built `tf_keras.Model`.
    output: Folder to write to. `ckpt-0` is written last, so that a folder with
      a checkpoint has all other files: `origin.json`, `config.gin`,
      `report.json`.
    origin: Content of `origin.json`.
    config: Gin bindings that describe the model.
    report: Report of the conversion.

  Returns:
    The prefix of the checkpoint.

  Raises:
    ValueError: The folder already has a checkpoint.
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


def check_output(output: str) -> None:
  """Raises ValueError if a folder holds a checkpoint."""
  prefixes = folders.find(output)
  if prefixes:
    raise ValueError(
      f'`output` must be a folder without a checkpoint, because none is '
      f'overwritten. Received: output={output}, with {", ".join(prefixes)}'
    )


def origin_of(
  source: weight_sources.Source, kind: str, report: Report
) -> dict[str, Any]:
  """Returns the content of `origin.json` of a converted checkpoint.

  Args:
    source: The opened checkpoint.
    kind: Kind of the weights.
    report: Report of the conversion.

  Returns:
    Dictionary for JSON.
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
