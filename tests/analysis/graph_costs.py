"""Costs of a forward pass or a training step, read from its traced graph."""

import math

import tensorflow as tf

# Operations whose output is the memory of their input.
_ALIASES = ('Reshape', 'Identity', 'ExpandDims', 'Squeeze', 'Unpack')


def trace(model, features, training, with_gradients=False, weights=None):
  """Traces a model.

  Args:
    model: `VATT`, built, or a function that is called in the same way.
    features: dictionary of `tf.TensorSpec` with the batch axis.
    training: bool.
    with_gradients: bool, also of the gradients of weights.
    weights: these weights; by default all of the model.

  Returns:
    (operations, num_forward): those that the outputs need, in the order in
    which they were made, and how many of them are of the forward pass.
  """
  ends, numbers = [], []

  @tf.function(autograph=False)
  def run(features):
    graph = tf.compat.v1.get_default_graph()
    if not with_gradients:
      outputs = model(features, training=training)
      ends.extend(outputs.values())
      return outputs
    with tf.GradientTape() as tape:
      outputs = model(features, training=training)
      total = tf.add_n([tf.reduce_sum(x**2) for x in outputs.values()])
    numbers.append(len(graph.get_operations()))
    gradients = tape.gradient(
      total, model.trainable_variables if weights is None else weights
    )
    gradients = [tf.convert_to_tensor(x) for x in gradients]
    ends.extend(gradients)
    return gradients

  graph = run.get_concrete_function(features).graph
  needed, waiting = set(), [tensor.op for tensor in ends]
  while waiting:
    operation = waiting.pop()
    if operation not in needed:
      needed.add(operation)
      waiting.extend(tensor.op for tensor in operation.inputs)
      waiting.extend(operation.control_inputs)
  operations = graph.get_operations()
  number = numbers[0] if numbers else len(operations)
  forward = [op for op in operations[:number] if op in needed]
  backward = [op for op in operations[number:] if op in needed]
  return forward + backward, len(forward)


def flops(operations):
  """FLOPs of all matrix products, 2 a multiply-add."""
  total = 0
  for operation in operations:
    if operation.type in ('Einsum', 'Conv2D', 'Conv3D', 'BatchMatMul'):
      raise NotImplementedError(operation.type)
    if operation.type == 'MatMul':
      contracted = 0 if operation.get_attr('transpose_a') else 1
    elif operation.type == 'BatchMatMulV2':
      contracted = -2 if operation.get_attr('adj_x') else -1
    else:
      continue
    depth = operation.inputs[0].shape[contracted]
    total += 2 * depth * math.prod(operation.outputs[0].shape)
  return total


def kept(operations, num_forward):
  """Tensors that the backward pass takes from the forward pass.

  Returns:
    List of pairs, tensor and bytes, without weights and constants; a view of
    a tensor is that tensor.
  """
  forward = set(operations[:num_forward])
  found = {}
  for operation in operations[num_forward:]:
    if operation.type in ('Shape', 'ShapeN', 'Size', 'Rank'):
      continue
    for tensor in operation.inputs:
      if tensor.op not in forward:
        continue
      while tensor.op.type in _ALIASES:
        tensor = tensor.op.inputs[0]
      if tensor.op.type in ('ReadVariableOp', 'Placeholder', 'Const'):
        continue
      found[tensor.ref()] = tensor.dtype.size * math.prod(tensor.shape)
  return [(reference.deref(), size) for reference, size in found.items()]
