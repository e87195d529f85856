"""Exact search and ScaNN, side by side: recall, latency, build time, memory.

    python -m benchmarks.search --output=found.json

The vectors are unit vectors, in two forms: `clustered`, 1,000 directions with
noise around them, and `random`, without any structure, which is the worst case
of an approximate search. Queries are drawn as the vectors are. Each method runs
in a separate process, with the settings of `vatt_tf.search`; its memory is that
of the process after the queries minus that before it opened the vectors (exact
search maps them from the file). Latency is measured for queries one after the
other; `batch` is the time per query in a batch of 64.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from vatt_tf.retrieval_index import nearest

DATA = ('clustered', 'random')
METHODS = (nearest.EXACT, nearest.SCANN)
_NUM_NEIGHBOURS = 10
_BATCH_SIZE = 64
_NUM_CLUSTERS = 1000
_NOISE = 0.7
_ROWS_AT_A_TIME = 100_000
_ROOT = pathlib.Path(__file__).resolve().parent.parent


def measure(data, num_vectors, num_dimensions, num_queries):
  """Measures both methods on the same vectors.

  Args:
    data: one of `DATA`.
    num_vectors: int.
    num_dimensions: int.
    num_queries: int.

  Returns:
    A dictionary from `METHODS` to dictionaries of figures.
  """
  with tempfile.TemporaryDirectory() as folder:
    _run('make', folder, data, num_vectors, num_dimensions, num_queries)
    found = {}
    for method in METHODS:
      found[method] = {
        'data': data,
        'num_vectors': num_vectors,
        'num_dimensions': num_dimensions,
        **_run(method, folder),
      }
    return found


def describe(method, found):
  """A line for people about a method's figures."""
  return (
    f'{found["num_vectors"]:>9,} {found["data"]:>9} {method:>5}: '
    f'recall@10 {found["recall"]:.3f}, one query {found["p50_ms"]:.2f} ms '
    f'(p99 {found["p99_ms"]:.2f}), in a batch {found["batch_ms"]:.2f} ms, '
    f'built in {found["build_seconds"]:.1f} s, opened in '
    f'{found["open_seconds"]:.2f} s, {found["memory_mb"]:,.0f} MB'
  )


def _run(*arguments):
  """Runs a part in a new process; returns what it prints as JSON."""
  done = subprocess.run(
    [sys.executable, '-m', 'benchmarks.search', '--part', *map(str, arguments)],
    cwd=_ROOT,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  return json.loads(done.stdout.splitlines()[-1])


def _make(folder, data, num_vectors, num_dimensions, num_queries):
  """Writes vectors and queries."""
  rng = np.random.default_rng(0)
  centres = rng.standard_normal([_NUM_CLUSTERS, num_dimensions], np.float32)

  def draw(count):
    x = rng.standard_normal([count, num_dimensions], np.float32)
    if data == 'clustered':
      x *= np.float32(_NOISE)
      x += centres[rng.integers(0, _NUM_CLUSTERS, count)]
    return x / np.linalg.norm(x, axis=1, keepdims=True)

  vectors = np.lib.format.open_memmap(
    os.path.join(folder, 'vectors.npy'),
    'w+',
    np.float32,
    (num_vectors, num_dimensions),
  )
  for start in range(0, num_vectors, _ROWS_AT_A_TIME):
    part = vectors[start : start + _ROWS_AT_A_TIME]
    part[:] = draw(len(part))
  np.save(os.path.join(folder, 'queries.npy'), draw(num_queries))
  return {}


def _held():
  """Bytes that the process holds now."""
  pages = pathlib.Path('/proc/self/statm').read_text().split()[1]
  return int(pages) * resource.getpagesize()


def _measure_here(method, folder):
  """Measures a method in this process."""
  path, right = (
    os.path.join(folder, name) for name in ('vectors.npy', 'right.npy')
  )
  queries = np.load(os.path.join(folder, 'queries.npy'))
  build_seconds = 0.0
  if method == nearest.SCANN:
    nearest.import_scann()
    # In a process of its own: what building takes is given back.
    build_seconds = _run('build', folder)['build_seconds']
  before = _held()
  start = time.perf_counter()
  vectors = np.load(path, mmap_mode='r')
  search = lambda asked: nearest.exact(asked, vectors, _NUM_NEIGHBOURS)  # noqa: E731
  if method == nearest.SCANN:
    opened = nearest.Approximate.load(os.path.join(folder, 'scann'), vectors)
    search = lambda asked: opened.search(asked, _NUM_NEIGHBOURS)  # noqa: E731
  open_seconds = time.perf_counter() - start
  search(queries[:1])  # maps the file
  times, rows = [], []
  for query in queries:
    start = time.perf_counter()
    ((_, found),) = search(query[np.newaxis])
    times.append(time.perf_counter() - start)
    rows.append(found)
  memory = _held() - before
  start = time.perf_counter()
  for first in range(0, len(queries), _BATCH_SIZE):
    search(queries[first : first + _BATCH_SIZE])
  batch = (time.perf_counter() - start) / len(queries)
  rows = np.array(rows)
  if method == nearest.EXACT:
    np.save(right, rows)
  hits = [len(set(a) & set(b)) for a, b in zip(rows, np.load(right))]
  return {
    'recall': float(np.mean(hits)) / _NUM_NEIGHBOURS,
    'p50_ms': 1e3 * float(np.percentile(times, 50)),
    'p99_ms': 1e3 * float(np.percentile(times, 99)),
    'batch_ms': 1e3 * batch,
    'build_seconds': build_seconds,
    'open_seconds': open_seconds,
    'memory_mb': memory / 1e6,
  }


def _build_here(folder):
  """Builds ScaNN's index in this process."""
  path = os.path.join(folder, 'vectors.npy')
  nearest.import_scann()
  start = time.perf_counter()
  built = nearest.Approximate.build(np.load(path))
  built.save(os.path.join(folder, 'scann'), path)
  return {'build_seconds': time.perf_counter() - start}


def _part(name, folder, *arguments):
  if name == 'make':
    data, *numbers = arguments
    return _make(folder, data, *map(int, numbers))
  if name == 'build':
    return _build_here(folder)
  return _measure_here(name, folder)


def main():
  """Parses the command line, measures and prints."""
  parser = argparse.ArgumentParser(description='Times exact search and ScaNN.')
  parser.add_argument('--num_vectors', default='1000000')
  parser.add_argument('--num_dimensions', type=int, default=256)
  parser.add_argument('--num_queries', type=int, default=128)
  parser.add_argument('--output', help='a JSON file to write')
  parser.add_argument('--part', nargs='+', help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.part:
    print(json.dumps(_part(*arguments.part)))
    return
  everything = []
  for num_vectors in map(int, arguments.num_vectors.split(',')):
    for data in DATA:
      found = measure(
        data, num_vectors, arguments.num_dimensions, arguments.num_queries
      )
      for method, figures in found.items():
        print(describe(method, figures), flush=True)
        everything.append({'method': method, **figures})
  if arguments.output:
    # It brings TensorFlow, which the processes that measure do without.
    from vatt_tf.core import file_utils

    file_utils.write_text(
      arguments.output, json.dumps(everything, indent=2) + '\n'
    )


if __name__ == '__main__':
  main()
