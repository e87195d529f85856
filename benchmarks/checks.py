"""Helpers of the verify scripts: checks that are written to a JSON file."""

import argparse
from collections.abc import Sequence
import contextlib
import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import tensorflow as tf

from vatt_tf.core import file_utils

ROOT = pathlib.Path(__file__).resolve().parent.parent


def parse_output(description: str) -> str:
  """Parses a command line whose only flag is --output; returns its value."""
  parser = argparse.ArgumentParser(description=description)
  parser.add_argument('--output', required=True, help='the JSON file to write')
  return parser.parse_args().output


class Checks:
  """Measurements with their limits.

  Args:
    title: Title of the checks, one line.
  """

  def __init__(self, title: str):
    self._found = {
      'title': title,
      'machine': {
        'processor': platform.machine(),
        'cores': len(os.sched_getaffinity(0)),
        'python': platform.python_version(),
      },
      'checks': {},
      'figures': {},
    }

  def note(self, name: str, value):
    """Records a measurement without limits; `value` is JSON."""
    self._found['figures'][name] = value
    print(f'  {name}: {json.dumps(value)}', flush=True)

  def check(self, name: str, value, at_least=None, at_most=None, equal=None):
    """Records a measurement, and whether it is within its limits."""
    holds = all(
      [
        at_least is None or value >= at_least,
        at_most is None or value <= at_most,
        equal is None or value == equal,
      ]
    )
    limits = {'at_least': at_least, 'at_most': at_most, 'equal': equal}
    limits = {key: limit for key, limit in limits.items() if limit is not None}
    self._found['checks'][name] = {'value': value, **limits, 'holds': holds}
    print(
      f'  {"ok" if holds else "FAILED"}: {name}: {value} '
      f'({", ".join(f"{key} {limit}" for key, limit in limits.items())})',
      flush=True,
    )

  def write(self, output: str) -> int:
    """Writes the JSON file; returns the exit code, 1 if a check failed."""
    failed = [
      name
      for name, check in self._found['checks'].items()
      if not check['holds']
    ]
    self._found['failed'] = failed
    file_utils.write_text(output, json.dumps(self._found, indent=2) + '\n')
    return 1 if failed else 0


def ingest(found, name, *arguments):
  """Runs ingest and checks its exit code.

  Args:
    found: Checks to add to.
    name: Name of the records, such as `train`.
    *arguments: Arguments of ingest, without `--name`.
  """
  _, code = run_module('ingest', f'--name={name}', '--num_shards=4', *arguments)
  found.check(f'exit code of ingest, {name}', code, equal=0)


def train(found, title: str, run: str, gin_file: str, bindings) -> str:
  """Trains a model as a user would, and checks the exit code.

  Args:
    found: Checks to add to.
    title: Name of the model in the results.
    run: Folder for the run.
    gin_file: Path of the gin file.
    bindings: Bindings of gin.

  Returns:
    What the command printed, for `recalls`.
  """
  start = time.monotonic()
  text, code = run_module(
    'train',
    f'--gin_file={gin_file}',
    f'--model_dir={run}',
    *(f'--gin_param={binding}' for binding in bindings),
  )
  found.check(f'{title}: exit code of train', code, equal=0)
  found.note(f'{title}: seconds', round(time.monotonic() - start))
  return text


def recalls(text: str, direction: str) -> list[float]:
  """Returns R@1, R@5 and R@10 of a direction, such as `text -> video`."""
  # Columns: queries, pool, R@1 (chance), R@5 (chance), R@10 (chance).
  row = re.search(rf'^{direction} +\d+ +\d+ +(.+)$', text, re.MULTILINE)
  return [float(cell) for cell in row.group(1).split()[:5:2]]


def make_sample_media(folder: str, *arguments: str):
  """Renders the sample media: `data/make_sample_media.py`.

  Its output goes to stderr, apart from a benchmark's own results.

  Args:
    folder: Folder of the media.
    *arguments: Arguments of the command, without `--output_dir`.
  """
  subprocess.run(
    [
      sys.executable,
      'data/make_sample_media.py',
      f'--output_dir={folder}',
      *arguments,
    ],
    cwd=ROOT,
    check=True,
    stdout=sys.stderr,
  )


def start_module(module: str, *arguments: str, **variables: str):
  """Starts `python -m vatt_tf.MODULE`.

  Args:
    module: Name of a command, such as `train`.
    *arguments: Arguments of the command.
    **variables: Additional environment variables.

  Returns:
    The process, a `subprocess.Popen`; `stdout` has the text of both outputs.
  """
  return subprocess.Popen(
    [sys.executable, '-m', f'vatt_tf.{module}', *arguments],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '2', **variables},
  )


def finish(process, stop_at=None, number=signal.SIGINT):
  """Shows what a process prints until it ends.

  Args:
    process: Process of `start_module`.
    stop_at: Start of the line after which the process gets a signal.
    number: Number of the signal, by default that of Ctrl-C.

  Returns:
    `(text, exit_code)`, with the text of both outputs.
  """
  lines = []
  for line in process.stdout:
    print(f'    {line}', end='', flush=True)
    lines.append(line)
    if stop_at is not None and line.startswith(stop_at):
      process.send_signal(number)
      stop_at = None
  return ''.join(lines), process.wait()


def run_module(module: str, *arguments: str, stop_at: str | None = None):
  """Runs `python -m vatt_tf.MODULE`: `start_module`, then `finish`."""
  return finish(start_module(module, *arguments), stop_at)


def read_scalars(folder: str) -> dict[str, list[float]]:
  """Reads TensorBoard events: name → its values in the order of the steps.

  For a step that was run twice, the later value counts.
  """
  found = {}
  for path in sorted(pathlib.Path(folder).glob('events.*')):
    for record in tf.data.TFRecordDataset(str(path)):
      event = tf.compat.v1.Event.FromString(record.numpy())
      for value in event.summary.value:
        number = float(tf.make_ndarray(value.tensor))
        found.setdefault(value.tag, {})[event.step] = number
  return {
    name: [values[step] for step in sorted(values)]
    for name, values in found.items()
  }


class Watched(NamedTuple):
  """Result of a command that logs its progress in a file.

  Args:
    start: Start time, in seconds of `time.perf_counter`.
    seconds: Duration of the command.
    lines: JSON values of the lines of the file, each with the time when it was
      written, like `start`.
    said: Text of both outputs.
  """

  start: float
  seconds: float
  lines: list[tuple[float, dict]]
  said: str


def run_watched(command: Sequence[str], path: str) -> Watched:
  """Runs a command in the root, and notes when lines are added to a file.

  Args:
    command: Words of the command.
    path: Path of a file with one JSON value per line, which the command writes
      and may remove at its end.

  Raises:
    RuntimeError: The command failed.
  """
  lines, file, rest = [], None, b''
  start = time.perf_counter()
  with contextlib.ExitStack() as stack:
    log = stack.enter_context(tempfile.TemporaryFile('w+'))
    process = subprocess.Popen(
      command,
      cwd=ROOT,
      stdout=log,
      stderr=subprocess.STDOUT,
      env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '2'},
    )
    is_over = False
    while not is_over:
      is_over = process.poll() is not None
      if file is None and os.path.exists(path):
        file = stack.enter_context(open(path, 'rb'))
      if file is not None:
        *whole, rest = (rest + file.read()).split(b'\n')
        now = time.perf_counter()
        lines += [(now, json.loads(line)) for line in whole]
      if not is_over:
        time.sleep(0.01)
    seconds = time.perf_counter() - start
    log.seek(0)
    said = log.read()
  if process.returncode:
    raise RuntimeError(
      f'{" ".join(command)} ended with {process.returncode}: {said[-2000:]}'
    )
  return Watched(start, seconds, lines, said)
