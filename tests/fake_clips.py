"""Clips of noise, to write as records."""

import numpy as np
import tensorflow as tf

from vatt_tf.input_pipeline.records import schema

# Fake records, for tests and benchmarks.


def fake_clip(
  seed: int = 0,
  num_frames: int = 30,
  frame_rate: float = 10.0,
  height: int = 256,
  width: int = 320,
  sample_rate: float = 48000.0,
  num_samples: int | None = None,
  num_captions: int = 2,
  num_classes: int = 10,
) -> schema.Clip:
  """A clip of moving colours with a tone: the form of a real one, no content.

  Args:
    seed: Clips of different seeds differ.
    num_frames: 0 for a clip without video.
    frame_rate: Frames a second.
    height: Of the frames.
    width: Of the frames.
    sample_rate: Samples a second.
    num_samples: Length of the waveform, by default as long as the frames; 0
      for a clip without sound.
    num_captions: Spread evenly over the clip.
    num_classes: The label is `seed` modulo this; 0 for a clip without label.
  """
  generator = np.random.default_rng(seed)
  seconds = num_frames / frame_rate
  if num_samples is None:
    num_samples = round(seconds * sample_rate)
  # Textured: smooth images would make JPEG decoding look cheaper than it is.
  grain = generator.normal(0.0, 12.0, [height, 2 * width, 3])
  rows = np.linspace(0.0, 3.0, height)[:, None, None]
  columns = np.linspace(0.0, 6.0, 2 * width)[None, :, None]
  phase = generator.uniform(0.0, 6.0, [3])
  scene = 128.0 + 80.0 * np.sin(3.0 * rows + 4.0 * columns + phase) + grain
  scene = np.clip(scene, 0, 255).astype(np.uint8)
  frames = []
  for i in range(num_frames):
    left = (i * 4) % width
    image = np.ascontiguousarray(scene[:, left : left + width])
    frames.append(tf.io.encode_jpeg(image, quality=90).numpy())
  times = np.arange(num_samples) / sample_rate
  tone = 0.5 * np.sin(2 * np.pi * generator.uniform(100, 1000) * times)
  step = int(max(seconds, num_samples / sample_rate) * schema.MICROSECONDS)
  step //= max(num_captions, 1)
  label = seed % num_classes if num_classes else 0
  return schema.Clip(
    example_id=f'fake-{seed:06d}',
    dataset_name='fake',
    frames=frames,
    timestamps=schema.frame_times(num_frames, frame_rate),
    frame_rate=frame_rate if num_frames else 0.0,
    height=height,
    width=width,
    waveform=tone.astype(np.float32) if num_samples else None,
    sample_rate=sample_rate if num_samples else 0.0,
    captions=[
      schema.Caption(f'clip {seed} says word{i}', i * step, (i + 1) * step)
      for i in range(num_captions)
    ],
    label_indices=[label] if num_classes else [],
    label_names=[f'class {label}'] if num_classes else [],
    data_path=f'fake/{seed:06d}.mp4',
    start=0,
    end=int(seconds * schema.MICROSECONDS),
  )
