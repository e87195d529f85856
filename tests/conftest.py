"""Settings of every test process, made before TensorFlow starts."""

import os

# Two test processes share the cores: keep the logs short and the thread pools
# small.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
os.environ.setdefault('MPLBACKEND', 'Agg')
