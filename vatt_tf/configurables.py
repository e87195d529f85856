"""Imports whatever gin files may configure; the mains import this module."""

from vatt_tf.analysis import report  # noqa: F401
from vatt_tf.evaluation import (
  classification,  # noqa: F401
  linear_probe,  # noqa: F401
  runner,  # noqa: F401
  splits,  # noqa: F401
  zero_shot,  # noqa: F401
)
from vatt_tf.input_pipeline import (
  images,  # noqa: F401
  pipeline,  # noqa: F401
)
from vatt_tf.models import (
  classification as classifier,  # noqa: F401
)
from vatt_tf.models import (
  patch_tower,  # noqa: F401
  sizes,  # noqa: F401
  text_tower,  # noqa: F401
  transformer_tower,  # noqa: F401
  vatt,  # noqa: F401
)
from vatt_tf.training import (
  finetune,  # noqa: F401
  loop,  # noqa: F401
  pretrain,  # noqa: F401
  schedules,  # noqa: F401
)
