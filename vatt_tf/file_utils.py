"""Writing files, local or remote, so that readers never see a part of one."""

import os

import tensorflow as tf


def write_text(path: str, text: str) -> None:
  """Writes a text file: it is either whole, or as it was before.

  Args:
    path: where to; folders that are not there are made.
    text: what it is to hold, written as UTF-8 with its line ends as they are.
  """
  folder, name = os.path.split(path)
  if folder:
    tf.io.gfile.makedirs(folder)
  temporary_path = os.path.join(folder, f'.{name}.{os.getpid()}.part')
  with tf.io.gfile.GFile(temporary_path, 'w') as file:
    file.write(text)
  tf.io.gfile.rename(temporary_path, path, overwrite=True)
