"""Carries a plan out, and reports what became of every variable."""

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
  """A plan does not fit; `report` says all that is wrong."""

  def __init__(self, message: str, report: 'Report | None'):
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
    target: Name of the model's variable, or None.
    shape: Of it, or None.
    sources: Tuple of names.
    source_shapes: Tuple of shapes.
    how: What was done, or why nothing was.
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
    rows: List of `Row`.
    notes: List of strings.
  """

  rows: list[Row]
  notes: list[str]

  def count(self, status: str) -> int:
    """How many rows have a status."""
    return sum(row.status == status for row in self.rows)

  def as_json(self) -> dict[str, Any]:
    """The report as a dictionary that json takes."""
    return {
      'counts': dict(collections.Counter(row.status for row in self.rows)),
      'notes': self.notes,
      'variables': [dataclasses.asdict(row) for row in self.rows],
    }

  def format(self) -> str:
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


def check(
  plan: plans.Plan, model: tf_keras.Model, shapes: Mapping[str, tuple[int, ...]]
) -> Report:
  """Compares a plan with the source and the model, without reading anything.

  Args:
    plan: `Plan`.
    model: A built model or layer.
    shapes: Dictionary from the source's names to shapes.

  Returns:
    `Report`; a row of the status `missing`, `misshapen` or `unused` is an
    error.

  Raises:
    ValueError: The plan names what neither has, or one target twice.
  """
  variables = plans.target_variables(model)
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


def apply(
  plan: plans.Plan,
  model: tf_keras.Model,
  source: weight_sources.Source,
  allow_partial: bool = False,
  advise: Callable[[Row], str] = _advise,
) -> Report:
  """Gives a model the values of a source.

  All names and shapes are compared first. One array is in memory at a time,
  beside the model.

  Args:
    plan: `Plan`.
    model: A built model or layer; call this in its strategy's scope.
    source: `Source`.
    allow_partial: Leave variables that are missing or misshapen as they are,
      and arrays that nothing takes unused.
    advise: Function from the first `Row` that is wrong to the sentence that
      says what to do.

  Returns:
    `Report`.

  Raises:
    ConversionError: Something is missing, misshapen or unused.
    ValueError: The source cannot be read; values before the damage are the
      model's already.
  """
  report = check(plan, model, source.shapes)
  wrong = [
    row for status in _ERRORS for row in report.rows if row.status == status
  ]
  if wrong and not allow_partial:
    raise ConversionError(_describe(wrong, source, advise), report)
  skipped = {row.target for row in wrong}
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
    variable = variables[assignment.target]
    variable.assign(value.astype(variable.dtype.as_numpy_dtype, copy=False))
    filled.add(assignment.target)
  mark_tables_filled(model, filled)
  return report


def mark_tables_filled(
  model: tf_keras.Model, targets: set[str] | None = None
) -> None:
  """Lets word tables that got their values be frozen from now on.

  Args:
    model: A built model or layer.
    targets: Set of the names of variables that got values; None: all did.
  """
  for layer in model.submodules:
    if isinstance(layer, text_embedding.TextEmbedding):
      if targets is None or plans.target_name(layer.embeddings) in targets:
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


def write_checkpoint(
  model: tf_keras.Model,
  output: str,
  origin: Mapping[str, Any],
  config: str,
  report: Report,
) -> str:
  """Writes a checkpoint as training does, and where it comes from.

  Args:
    model: A built `tf_keras.Model`.
    output: A folder. `ckpt-0` is written last, so that a folder with a
      checkpoint has all the rest: `origin.json`, `config.gin`, `report.json`.
    origin: Dictionary for json.
    config: The gin bindings that describe the model.
    report: `Report`.

  Returns:
    The prefix of the checkpoint.

  Raises:
    ValueError: There is a checkpoint already.
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
      f'`output` must be a folder without a checkpoint, so that none is lost. '
      f'Received: output={output}, with {", ".join(prefixes)}'
    )


def origin_of(
  source: weight_sources.Source, kind: str, report: Report
) -> dict[str, Any]:
  """What a converted checkpoint says of its origin.

  Args:
    source: `Source`.
    kind: Kind of the weights.
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
