"""Initializes a model of one tower from a checkpoint that this library wrote.

Fine-tuning takes one tower of a pre-trained model, whose weights have the same
names there, or continues from a classifier or detector, which may have other
classes.
"""

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2
import tf_keras

from vatt_tf.checkpoints import folders, plans, reports, weight_sources
from vatt_tf.core import file_utils
from vatt_tf.models import single_tower

_MODEL = 'model/'
_TABLE_ADVICE = (
  'Larger inputs need no larger tables of positions, which are interpolated: '
  'give the model the sizes of the tables in the checkpoint (`input_size` '
  'of the tower, in config.gin beside the checkpoint; the TABLE_ macros of the '
  'gin files), and set the sizes of the inputs only for the data (VideoConfig, '
  'AudioConfig).'
)
_ADVICE = (
  'The checkpoint must have the whole tower: give the model the modality '
  'and the model file of the trained one (config.gin beside the checkpoint).'
)


def _weights(source):
  """Maps the names of a model's variables to the names of their arrays.

  Args:
    source: `weight_sources.Source` of a checkpoint that training wrote.

  Returns:
    Dictionary of strings.

  Raises:
    ValueError: The checkpoint holds no model.
  """
  reader = tf.train.load_checkpoint(file_utils.literal_path(source.path))
  graph = trackable_object_graph_pb2.TrackableObjectGraph()
  if reader.has_tensor(folders.OBJECT_GRAPH):
    graph.ParseFromString(reader.get_tensor(folders.OBJECT_GRAPH))
  names = {
    attribute.full_name: weight_sources.strip_attribute(
      attribute.checkpoint_key
    )
    for node in graph.nodes
    for attribute in node.attributes
    if attribute.checkpoint_key.startswith(_MODEL)
  }
  if not names:
    raise ValueError(
      f'{source.path} is neither a checkpoint of vatt_tf, which has variables '
      f'such as {_MODEL}…, nor one of the released VATT. It has '
      f'{len(source.shapes)} variables: {", ".join(list(source.shapes)[:4])}, '
      '…. Give the directory of a run, or convert the checkpoint first '
      '(`python -m vatt_tf.convert`).'
    )
  return names


def plan(
  source: weight_sources.Source, model: tf_keras.Model, use_ema: bool = True
) -> plans.Plan:
  """Plans how one of our checkpoints fills a model of one tower.

  Args:
    source: The opened checkpoint.
    model: A built `single_tower.SingleTowerModel`.
    use_ema: Whether to use the averages of the weights where the checkpoint has
      them.

  Returns:
    `plans.Plan`. What follows the tower is `new` where the checkpoint has no
    such weight, or has another number of classes.

  Raises:
    ValueError: The file is not a checkpoint of vatt_tf.
  """
  names = _weights(source)
  mapping = plans.Plan([])
  used = set()
  for target, variable in plans.target_variables(model).items():
    if single_tower.is_output(target, model):
      shape = source.shapes.get(names.get(target))
      if shape is None:
        mapping.new[target] = 'the checkpoint has no classes'
        continue
      if tuple(shape) != tuple(variable.shape):
        mapping.new[target] = f'the checkpoint has {shape[-1]} classes'
        continue
    average = f'ema/{target}'
    if use_ema and average in source.shapes:
      name, note = average, 'average over the steps'
    else:
      name, note = names.get(target), ''
    if name is None:
      mapping.missing[target] = 'the checkpoint has no such weight'
    else:
      mapping.assignments.append(plans.copy(target, name, note, change=None))
      used.add(name)
  mapping.ignored.update(
    (name, f'not of the {model.name}')
    for name in source.shapes
    if name not in used
  )
  return mapping


def load(
  model: tf_keras.Model, source: weight_sources.Source, use_ema: bool = True
) -> reports.Report:
  """Fills a model of one tower from one of our checkpoints.

  Args:
    model: A built `single_tower.SingleTowerModel`; call this in its strategy's
      scope.
    source: The opened checkpoint.
    use_ema: Whether to use the averages of the weights where the checkpoint has
      them.

  Returns:
    `reports.Report`.

  Raises:
    ValueError: The checkpoint cannot be read, or lacks a part of the tower.
  """
  return reports.apply(
    plan(source, model, use_ema), model, source, advise=_advise
  )


def _advise(row):
  """What to do about the first `reports.Row` that does not fit."""
  is_table = '/position_embedding/' in row.target
  return _TABLE_ADVICE if is_table and row.sources else _ADVICE
