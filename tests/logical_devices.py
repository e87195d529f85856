"""Splits the CPU in logical devices, for tests with several replicas.

This works only before TensorFlow starts, so the settings of the tests do it
for a whole test process; a file that needs the devices asks for them too, in
`setUpModule`, for when it runs alone.
"""

import tensorflow as tf

NUM_DEVICES = 2


def make():
  """Makes `NUM_DEVICES` logical CPU devices, unless there are as many.

  Raises:
    RuntimeError: TensorFlow has started with fewer.
  """
  cpu = tf.config.list_physical_devices('CPU')[0]
  present = tf.config.get_logical_device_configuration(cpu) or []
  if len(present) < NUM_DEVICES:
    tf.config.set_logical_device_configuration(
      cpu, [tf.config.LogicalDeviceConfiguration()] * NUM_DEVICES
    )
