"""TensorFlow Serving's API over exported models, in one local process."""
