"""Checks the server under load: right answers, memory, batching, reload, drain.

    python -m benchmarks.verify_serving --output=found.json

The model is gin/pretrain_sample.gin with random weights; clients and server
share the machine.
"""

import collections
import functools
import os
import shutil
import signal
import sys
import tempfile
import time

import tensorflow as tf

from benchmarks import checks, serving
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import gin_utils

_NUM_CLIENTS = 64
_SECONDS = 60
_SIGNATURE = 'embed_text'
# Answers that a new version must give, and for how many times ten seconds it is
# waited for.
_NUM_NEW = 100
_MAX_ROUNDS = 12
# As many seconds before a signal a request is surely received.
_SURELY_RECEIVED = 0.2


def _export(found, folder):
  """Exports a model; returns the folder of its versions."""
  run, output = os.path.join(folder, 'run'), os.path.join(folder, 'model')
  gin_utils.parse(
    ['gin/pretrain_sample.gin'],
    [f"VOCABULARY='{checks.ROOT}/data/sample/vocabulary.txt'"],
  )
  gin_utils.write_config(run)
  model = gin_utils.get_task().build_model()
  tf.train.Checkpoint(model=model).save(os.path.join(run, 'ckpt'))
  _, code = checks.run_module(
    'export_saved_model',
    f'--checkpoint={run}/ckpt-1',
    f'--output={output}',
  )
  found.check('exit code of export', code, equal=0)
  return output


def _check_load(found, figures, title):
  found.note(title, figures)
  found.check(f'{title}: errors', figures['errors'], equal=0)
  found.check(f'{title}: wrong answers', figures['wrong_answers'], equal=0)
  found.check(f'{title}: exit code', figures['server_exit_code'], equal=0)


def _check_reload_and_drain(found, output):
  """A second version in the middle of the load; then SIGTERM in another."""
  path = serving.newest_version(output)
  requests, answers = serving.make_requests(path, _SIGNATURE)
  server = serving.start_server(output)
  ask = functools.partial(
    serving.run_load, server.port, requests, answers, _NUM_CLIENTS
  )
  whole, part = os.path.join(output, '2'), os.path.join(output, '.2.part')
  shutil.copytree(path, part)
  loads = [ask(10, [(5, lambda: os.rename(part, whole))])]
  # Loading goes slowly on a machine that has much else to do.
  while loads[-1].versions[2] < _NUM_NEW and len(loads) < _MAX_ROUNDS:
    loads.append(ask(10))
  versions = sum((load.versions for load in loads), collections.Counter())
  found.note('reload', [load.summary() for load in loads])
  found.check('reload: errors', sum(len(x.errors) for x in loads), equal=0)
  found.check('reload: wrong answers', sum(x.num_wrong for x in loads), equal=0)
  for version in (1, 2):
    found.check(
      f'reload: answers of version {version}',
      versions[version],
      at_least=_NUM_NEW,
    )

  stopped = []

  def stop():
    stopped.append(time.perf_counter())
    server.process.send_signal(signal.SIGTERM)

  load = ask(6, [(3, stop)])
  lost = [
    text for start, text in load.errors if start < stopped[0] - _SURELY_RECEIVED
  ]
  # gRPC cancels what comes while it closes.
  refusals = ('UNAVAILABLE', 'CANCELLED')
  others = [text for _, text in load.errors if not text.startswith(refusals)]
  found.note('drain', {**load.summary(), 'first_errors': load.errors[:3]})
  found.check('drain: requests that were lost', len(lost), equal=0)
  found.check('drain: wrong answers', load.num_wrong, equal=0)
  found.check('drain: errors that are no refusals', len(others), equal=0)
  found.check('drain: refused', len(load.errors), at_least=_NUM_CLIENTS)
  found.check('drain: exit code', server.process.wait(), equal=0)


def main():
  """Runs the checks."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('vatt_tf.serve under load')
  with tempfile.TemporaryDirectory() as folder:
    model = _export(found, folder)
    merged = serving.measure(model, _SIGNATURE, _NUM_CLIENTS, _SECONDS)
    _check_load(found, merged, f'{_NUM_CLIENTS} clients')
    found.check(
      'growth of memory',
      merged['server_rss_mb_at_end'] / merged['server_rss_mb_at_start'],
      at_most=1.05,
    )
    single = serving.measure(
      model, _SIGNATURE, _NUM_CLIENTS, _SECONDS / 3, batching=False
    )
    _check_load(found, single, 'batches of one')
    found.check(
      'throughput of batching against batches of one',
      merged['requests_per_second'] / single['requests_per_second'],
      at_least=2.0,
    )
    _check_reload_and_drain(found, model)
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
