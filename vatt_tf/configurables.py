"""Imports everything that gin files may configure, for the commands.

Every module of `vatt_tf.models` is imported, so that a new backbone needs its
file alone. A gin file imports other modules: `import my_package.tower`.
"""

import importlib
import pkgutil

from vatt_tf import models
from vatt_tf.analysis import report  # noqa: F401
from vatt_tf.evaluation import (
  classification,  # noqa: F401
  detection,  # noqa: F401
  linear_probe,  # noqa: F401
  localization,  # noqa: F401
  multi_label_probe,  # noqa: F401
  runner,  # noqa: F401
  splits,  # noqa: F401
  zero_shot,  # noqa: F401
)
from vatt_tf.input_pipeline import (
  fake_batches,  # noqa: F401
  images,  # noqa: F401
  pipeline,  # noqa: F401
)
from vatt_tf.training import (
  detect,  # noqa: F401
  finetune,  # noqa: F401
  loop,  # noqa: F401
  pretrain,  # noqa: F401
  schedules,  # noqa: F401
)

for _module in pkgutil.iter_modules(models.__path__):
  importlib.import_module(f'{models.__name__}.{_module.name}')
