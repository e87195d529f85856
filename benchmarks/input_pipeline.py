"""The speed of the input pipeline, on this machine.

    python -m benchmarks.input_pipeline --workload=f4

`f4`: clips of three seconds, 360 x 288 at 25 frames per second with sound,
which `vatt_tf.ingest` turns into records (10 frames per second, shorter side
256, sound at 48 kHz), read with the paper's training augmentation: 32 frames of
the 30 stored, 224 x 224 random crops, flips, colours, 153,600 samples, batch 4.
The cost of a JPEG image depends on its content, so the media are rendered to
look natural: fractal texture that drifts, edges, and the noise of a sensor.

`f4_cached`: the same with decoded clips in memory.

`quickstart`: the model, the records and the batches of `make quickstart`, whose
decoded clips are in memory. The result is the speed of the pipeline relative to
the training of that model; both are measured alternately in the same run, each
with the machine to itself. `quickstart_uncached`: the same without the cache.

A result is the median of `--rounds`, after a warm-up. The report also has a
measure of the machine: the number of 360 x 288 JPEG images of such media that
one core decodes per second.
"""

import argparse
from collections.abc import Sequence
import csv
import gc
import json
import os
import pathlib
import sys
import tempfile
import time

import av
import gin
import numpy as np
import tensorflow as tf

from vatt_tf import (
  configurables,  # noqa: F401
  quickstart,
)
from vatt_tf.core import file_utils, gin_utils, strategies
from vatt_tf.input_pipeline import audio_config, pipeline, video_config
from vatt_tf.media import ingest
from vatt_tf.training import trainer

_SIZE = (288, 360)
_FRAME_RATE = 25
_SECONDS = 3.0
_AUDIO_RATE = 48_000
_QUICKSTART = 'gin/pretrain_sample.gin'
_BATCH_SIZE = 32  # The quickstart's.
_STEPS = 10


# Media.


def _texture(rng, height, width):
  """Fractal noise as natural pictures have it: (height, width, 3) float32."""
  y = np.fft.fftfreq(height)[:, None]
  x = np.fft.rfftfreq(width)[None]
  frequency = np.maximum(np.hypot(y, x), 1.0 / max(height, width))
  amplitude = frequency**-1.5  # about 2.2 bits a pixel as a JPEG image
  planes = []
  for _ in range(3):
    phase = np.exp(2j * np.pi * rng.random(amplitude.shape))
    plane = np.fft.irfft2(amplitude * phase, (height, width))
    planes.append(plane / plane.std())
  light, *chroma = planes
  colors = [light + 0.4 * chroma[0], light, light + 0.4 * chroma[1]]
  return (np.stack(colors, axis=-1) * 45.0).astype(np.float32)


def _render(rng):
  """The frames of a clip: (T, H, W, 3) uint8."""
  height, width = _SIZE
  back = _texture(rng, height + 64, width + 64)
  front = _texture(rng, height + 64, width + 64)
  y, x = np.mgrid[:height, :width].astype(np.float32)
  noise = rng.normal(0.0, 2.0, [height + 64, width + 64, 1])
  noise = noise.astype(np.float32)
  start = rng.random(2) * 6.28
  frames = []
  for number in range(round(_SECONDS * _FRAME_RATE)):
    turn = 6.28 * number / (_SECONDS * _FRAME_RATE)
    top, left = (32 + 31 * np.sin(start + turn)).astype(int)
    frame = 120.0 + back[top : top + height, left : left + width]
    # A body with a sharp edge, which moves the other way.
    center = np.array([height / 2, width / 2]) - 60 * np.sin(start + turn)
    inside = np.abs(y - center[0]) + 0.6 * np.abs(x - center[1]) < 70
    frame = np.where(inside[..., None], 150.0 + front[:height, :width], frame)
    top, left = rng.integers(0, 64, 2)
    frame += noise[top : top + height, left : left + width]
    frames.append(np.clip(frame, 0, 255).astype(np.uint8))
  return np.stack(frames)


def make_media(folder: pathlib.Path, num_clips: int) -> pathlib.Path:
  """Renders clips with sound; returns the path of their manifest."""
  rows = []
  for number in range(num_clips):
    rng = np.random.default_rng(number)
    name = f'{number:04d}.mp4'
    with av.open(str(folder / name), 'w') as container:
      stream = container.add_stream('libx264', rate=_FRAME_RATE)
      stream.height, stream.width = _SIZE
      stream.pix_fmt = 'yuv420p'
      stream.options = {'preset': 'veryfast', 'crf': '18'}
      sound = container.add_stream('aac', rate=_AUDIO_RATE)
      sound.layout = 'mono'
      for pixels in _render(rng):
        frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
        container.mux(stream.encode(frame))
      container.mux(stream.encode(None))
      samples = rng.normal(0, 0.1, [1, round(_SECONDS * _AUDIO_RATE)])
      frame = av.AudioFrame.from_ndarray(
        samples.astype(np.float32), format='fltp', layout='mono'
      )
      frame.sample_rate = _AUDIO_RATE
      frame.pts = 0
      container.mux(sound.encode(frame))
      container.mux(sound.encode(None))
    rows.append({'video_path': name, 'caption': f'clip {number}'})
  manifest = folder / 'train.csv'
  with open(manifest, 'w', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, ['video_path', 'caption'])
    writer.writeheader()
    writer.writerows(rows)
  return manifest


def jpegs_per_second(num_frames: int = 300) -> float:
  """The number of 360 x 288 JPEG images that one core decodes per second."""
  frames = _render(np.random.default_rng(0))[:10]
  encoded = [tf.io.encode_jpeg(frame, quality=90) for frame in frames]
  start = time.perf_counter()
  for number in range(num_frames):
    tf.io.decode_jpeg(encoded[number % len(encoded)])
  return num_frames / (time.perf_counter() - start)


# Rates.


def clips_per_second(
  dataset: tf.data.Dataset, batch_size: int, num_warm_up: int, num_timed: int
) -> float:
  """The number of clips that a data set yields per second."""
  iterator = iter(dataset)
  for _ in range(num_warm_up):
    next(iterator)
  start = time.perf_counter()
  for _ in range(num_timed):
    next(iterator)
  return num_timed * batch_size / (time.perf_counter() - start)


def make_f4_records(folder: str, num_clips: int) -> dict[str, object]:
  """Renders media, makes records of them, and returns the size of frames."""
  media = pathlib.Path(folder, 'media')
  media.mkdir(parents=True)
  manifest = make_media(media, num_clips)
  start = time.perf_counter()
  ingest.ingest(
    os.path.join(folder, 'records'),
    str(manifest),
    num_shards=4,
    audio_rate=_AUDIO_RATE,
    show_progress=False,
  )
  return {
    'num_clips': num_clips,
    'ingest_seconds': time.perf_counter() - start,
    'bytes_per_record': sum(
      path.stat().st_size
      for path in pathlib.Path(folder, 'records').glob('*.tfrecord')
    )
    / num_clips,
  }


def f4_dataset(folder: str, **arguments) -> tf.data.Dataset:
  """VATT's training batches of the records of `make_f4_records`."""
  return pipeline.make_dataset(
    os.path.join(folder, 'records', 'train-*.tfrecord'),
    4,
    is_training=True,
    video=video_config.VideoConfig(),
    audio=audio_config.AudioConfig(),
    **arguments,
  )


def measure_f4(
  rounds: int, num_clips: int = 48, folder: str | None = None, **arguments
) -> dict[str, object]:
  """Measures the workload `f4`.

  Args:
    rounds: Times that the figure is taken.
    num_clips: Clips to make.
    folder: Where media and records are made, or lie from an earlier run; None
      for a temporary one.
    **arguments: More of `make_dataset`.

  Returns:
    A dictionary of figures.
  """
  with tempfile.TemporaryDirectory() as temporary:
    folder = folder or temporary
    found = {}
    if not os.path.isdir(os.path.join(folder, 'records')):
      found = make_f4_records(folder, num_clips)
    dataset = f4_dataset(folder, **arguments)
    references, rates = [], []
    for _ in range(rounds):
      references.append(jpegs_per_second())
      rates.append(clips_per_second(dataset, 4, 8, 48))
  return {**found, **_figures(rates, references)}


def _make_trainer():
  """The quickstart's model in training on a single repeated batch."""
  strategy = strategies.make_strategy('one_device')

  def make_batches(_):
    return _quickstart_dataset().take(1).cache().repeat()

  task = gin.get_configurable('PretrainTask')()
  with strategy.scope():
    model = task.build_model()
    optimizer = gin.get_configurable('make_optimizer')()
    optimizer.prepare(model)
  dataset = strategy.distribute_datasets_from_function(make_batches)
  return trainer.Trainer(task, model, optimizer, dataset, strategy, seed=0)


def _quickstart_dataset():
  with gin.config_scope('train'):
    make_dataset = gin.get_configurable('make_dataset')
    return make_dataset(global_batch_size=_BATCH_SIZE)


def measure_quickstart(
  rounds: int, bindings: Sequence[str] = ()
) -> dict[str, object]:
  """Measures the workload `quickstart`.

  Args:
    rounds: Times that the figures are taken.
    bindings: More of gin.

  Returns:
    A dictionary of figures.
  """
  with tempfile.TemporaryDirectory() as folder:
    bindings = [*quickstart.make_data(folder), *bindings]
    gin_utils.parse([_QUICKSTART], bindings)
    return _measure_training(rounds)


def _measure_training(rounds):
  step_trainer = _make_trainer()
  # Decodes the clips that are kept, before the clock runs.
  dataset = _quickstart_dataset()
  step_trainer.train(tf.constant(_STEPS))  # traces
  references, rates, training = [], [], []
  for _ in range(rounds):
    references.append(jpegs_per_second())
    rates.append(clips_per_second(dataset, _BATCH_SIZE, 20, 120))
    gc.collect()  # Ends what the pipeline goes on to read.
    start = time.perf_counter()
    step_trainer.train(tf.constant(_STEPS))
    seconds = time.perf_counter() - start
    training.append(_STEPS * _BATCH_SIZE / seconds)
  found = _figures(rates, references)
  rate = float(np.median(training))
  return {
    **found,
    'training_clips_per_second': rate,
    'times_the_training': found['clips_per_second'] / rate,
  }


def _figures(rates, references):
  """The median of a rate, in all and per core, beside the machine's speed."""
  cores = strategies.num_cores()
  rate, reference = float(np.median(rates)), float(np.median(references))
  return {
    'cores': cores,
    'rounds': rates,
    'clips_per_second': rate,
    'clips_per_second_per_core': rate / cores,
    'jpegs_per_second_per_core': reference,
    'clips_per_1000_jpegs': 1000.0 * rate / cores / reference,
  }


# The command.

_CACHE_GIB = 1.0  # 48 clips of `f4` take 0.33 GiB.


WORKLOADS = ('f4', 'f4_cached', 'quickstart_uncached', 'quickstart')


def measure(workload: str, rounds: int) -> dict[str, object]:
  """Measures a workload by its name.

  Args:
    workload: One of `WORKLOADS`.
    rounds: Times that the figures are taken.

  Returns:
    A dictionary of figures.
  """
  if workload == 'quickstart':
    found = measure_quickstart(rounds)
  elif workload == 'quickstart_uncached':
    found = measure_quickstart(rounds, ['CACHE_GIB=0.0'])
  elif workload == 'f4_cached':
    found = measure_f4(rounds, cache_gib=_CACHE_GIB)
  else:
    found = measure_f4(rounds)
  return {'workload': workload, **found}


def describe(found: dict[str, object]) -> str:
  """A line for people."""
  line = (
    f'{found["workload"]}: {found["clips_per_second"]:.1f} clips/s on '
    f'{found["cores"]} cores, {found["clips_per_second_per_core"]:.1f} a core, '
    f'where a core decodes {found["jpegs_per_second_per_core"]:.0f} JPEG '
    'images of 360 x 288 a second'
  )
  if 'times_the_training' in found:
    line += (
      f'; {found["times_the_training"]:.1f} times the training, '
      f'{found["training_clips_per_second"]:.1f} clips/s'
    )
  return line


def main():
  """Parses the command line, measures and prints."""
  parser = argparse.ArgumentParser(description='Times the input pipeline.')
  parser.add_argument('--workload', choices=WORKLOADS, default='f4')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--output', help='a JSON file to write')
  arguments = parser.parse_args()
  found = measure(arguments.workload, arguments.rounds)
  print(json.dumps(found))
  print(describe(found))
  if arguments.output:
    file_utils.write_text(arguments.output, json.dumps(found, indent=2) + '\n')
  return 0


if __name__ == '__main__':
  sys.exit(main())
