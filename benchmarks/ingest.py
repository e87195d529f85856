"""The speed of `python -m vatt_tf.ingest`, and whether its records are right.

    python -m benchmarks.ingest --output=found.json

In the workload, 600 clips of 3 s (360 x 288, 25 frames per second, H.264;
stereo sound of 44.1 kHz, AAC; mp4) become records of 10 frames per second,
shorter side 256, sound of 48 kHz. The clips are made first, which is not timed:
20 different videos of moving texture, whose packets are copied, and a different
sound for each file.

The rate counts the records between the first and the last one, by the times of
their lines in `NAME.progress.jsonl`; the time before the first one is start-up.
Because machines differ, the report also has the rate at which one process
decodes such files with PyAV and does nothing else.

Then every record is compared with the content of its file: the number of
samples, their level, pitch and time, and in some of them the pictures.
"""

import argparse
import csv
from fractions import Fraction
import glob
import json
import os
import sys
import tempfile
import time

import av
import cv2
import numpy as np

from benchmarks import checks
from vatt_tf.core import file_utils, strategies
from vatt_tf.input_pipeline.records import reading

_SECONDS = 3
_SIZE = (360, 288)
_FRAME_RATE = 25
_NUM_VIDEOS = 20
_SOUND_RATE = 44_100
# Of the tone on the left and on the right; records hold their mean.
_LEVELS = (0.6, 0.2)

_RECORD_FRAME_RATE = 10
_RECORD_SIZE = (320, 256)
_RECORD_SOUND_RATE = 48_000
# Files that are decoded for the speed of the machine.
_NUM_REFERENCE = 20
# Files at the end whose sound is lossless.
_NUM_LOSSLESS = 4
# Videos whose pictures are compared.
_NUM_COMPARED = 3


# Media.


def _texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
  """(height, width, 3) float32 noise at all scales, as in natural pictures."""
  picture = np.full([height, width, 3], 128.0, np.float32)
  for cell, amplitude in ((96, 40), (32, 24), (12, 14), (4, 8), (2, 4)):
    noise = rng.normal(size=[height // cell + 2, width // cell + 2, 3])
    noise = cv2.resize(
      noise.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    # Brightness varies more than colour.
    noise = 0.75 * noise.mean(axis=2, keepdims=True) + 0.25 * noise
    picture += amplitude * 1.7 * noise
  return picture


def make_frames(number: int) -> np.ndarray:
  """The pictures of one of the different videos.

  A textured background that passes by, three textured discs that move over it,
  and the noise of a sensor.

  Args:
    number: Which one.

  Returns:
    (75, 288, 360, 3) uint8, RGB.
  """
  rng = np.random.default_rng([7, number])
  width, height = _SIZE
  count = _SECONDS * _FRAME_RATE
  margin = 80
  background = _texture(rng, width + 2 * margin, height + 2 * margin)
  pan = rng.uniform(-1, 1, size=2)
  discs = [
    (
      _texture(rng, 120, 120) + rng.uniform(-60, 60, size=3),
      rng.uniform([60, 60], [width - 60, height - 60]),
      rng.uniform(10, 40, size=2),
      rng.uniform(0.3, 1.2, size=2),
    )
    for _ in range(3)
  ]
  y, x = np.mgrid[-60:60, -60:60]
  inside = np.clip(58 - np.hypot(x, y), 0, 1)[..., None]
  frames = np.empty([count, height, width, 3], np.uint8)
  for i in range(count):
    x_shift, y_shift = -margin - pan * i
    shift = np.float32([[1, 0, x_shift], [0, 1, y_shift]])
    picture = cv2.warpAffine(background, shift, _SIZE)
    for disc, middle, reach, speed in discs:
      at = middle + reach * np.sin(2 * np.pi * speed * i / _FRAME_RATE)
      left, top = np.clip(np.round(at) - 60, 0, [width - 120, height - 120])
      part = picture[int(top) : int(top) + 120, int(left) : int(left) + 120]
      part += inside * (disc - part)
    picture += rng.normal(scale=1.5, size=[height, width, 1])
    frames[i] = np.clip(picture, 0, 255)
  return frames


def pitch(number: int) -> float:
  """Hz of the tone in a file; each has another one."""
  return 300.0 + 5.0 * number


def make_tone(number: int, rate: int, levels) -> np.ndarray:
  """(channels, 3 s * rate) float32: the tone of a file at some levels."""
  times = np.arange(_SECONDS * rate) / rate
  tone = np.sin(2 * np.pi * pitch(number) * times)
  return (np.array(levels)[:, None] * tone).astype(np.float32)


def _is_lossless(number: int, num_clips: int) -> bool:
  """Whether the sound of a file is not coded with loss."""
  return number >= num_clips - _NUM_LOSSLESS


def _write_video(path: str, frames: np.ndarray) -> None:
  with av.open(path, 'w') as container:
    stream = container.add_stream('libx264', rate=_FRAME_RATE)
    stream.width, stream.height = _SIZE
    stream.pix_fmt = 'yuv420p'
    stream.options = {'crf': '23', 'preset': 'fast'}
    for picture in frames:
      frame = av.VideoFrame.from_ndarray(picture, 'rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _write_clip(path: str, video_path: str, number: int, codec: str) -> None:
  """Writes a file with the packets of a video and the tone of its number."""
  with av.open(video_path) as source, av.open(path, 'w') as container:
    video = container.add_stream_from_template(source.streams.video[0])
    sound = container.add_stream(codec, rate=_SOUND_RATE, layout='stereo')
    if codec == 'aac':
      sound.codec_context.bit_rate = 256_000
    for packet in source.demux(video=0):
      if packet.dts is not None:
        packet.stream = video
        container.mux(packet)
    samples = make_tone(number, _SOUND_RATE, _LEVELS)
    form = 'fltp'
    if codec == 'alac':
      samples, form = np.round(samples * 32768).astype(np.int16), 's16p'
    for i in range(0, samples.shape[1], 1024):
      part = np.ascontiguousarray(samples[:, i : i + 1024])
      frame = av.AudioFrame.from_ndarray(part, form, 'stereo')
      frame.sample_rate = _SOUND_RATE
      frame.pts, frame.time_base = i, Fraction(1, _SOUND_RATE)
      container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def write_media(folder: str, num_clips: int) -> str:
  """Writes the files of the workload, `00000.mp4` on, and their manifest.

  Args:
    folder: Existing folder to write to.
    num_clips: Number of files.

  Returns:
    Path of the manifest.
  """
  videos = []
  for number in range(min(_NUM_VIDEOS, num_clips)):
    videos.append(os.path.join(folder, f'.video-{number}.mp4'))
    _write_video(videos[-1], make_frames(number))
  manifest = os.path.join(folder, 'manifest.csv')
  with open(manifest, 'w', encoding='utf-8', newline='') as file:
    rows = csv.writer(file)
    rows.writerow(['video_path', 'start', 'end'])
    for number in range(num_clips):
      name = f'{number:05d}.mp4'
      video = videos[number % len(videos)]
      codec = 'alac' if _is_lossless(number, num_clips) else 'aac'
      _write_clip(os.path.join(folder, name), video, number, codec)
      rows.writerow([name, 0, _SECONDS])
  for path in videos:
    os.remove(path)
  return manifest


# Speed.


def decode_rate(paths) -> float:
  """Returns the clips per second that this process decodes.

  Args:
    paths: Files, each decoded once, with one thread.
  """
  start = time.perf_counter()
  for path in paths:
    with av.open(path) as container:
      video = container.streams.video[0]
      video.codec_context.thread_count = 1
      for packet in container.demux():
        packet.decode()
  return len(paths) / (time.perf_counter() - start)


def run_ingest(manifest: str, output_dir: str, *arguments: str) -> dict:
  """Runs `python -m vatt_tf.ingest` and times it.

  Args:
    manifest: Path of the manifest to ingest.
    output_dir: A new folder to write to.
    *arguments: Other flags of the command.

  Returns:
    A dictionary of measurements.

  Raises:
    RuntimeError: The command failed, or wrote fewer than two records.
  """
  command = [
    sys.executable, '-m', 'vatt_tf.ingest', f'--manifest={manifest}',
    f'--output_dir={output_dir}', *arguments,
  ]  # fmt: skip
  journal = os.path.join(output_dir, 'train.progress.jsonl')
  watched = checks.run_watched(command, journal)
  times = []
  for at, line in watched.lines:
    times += [at] * line.get('records', 0)
  if len(times) < 2:
    raise RuntimeError(f'{len(times)} records: {watched.said[-2000:]}')
  num_cores = strategies.num_cores()
  rate = (len(times) - 1) / (times[-1] - times[0])
  return {
    'num_records': len(times),
    'num_cores': num_cores,
    'clips_per_second': rate,
    'clips_per_second_per_core': rate / num_cores,
    'times_real_time': rate * _SECONDS,
    'startup_seconds': times[0] - watched.start,
    'seconds': watched.seconds,
    'clips_per_second_of_all': len(times) / watched.seconds,
  }


# Content.


def compare_sound(waveform: np.ndarray, number: int) -> dict:
  """Measures the errors of the sound of a record.

  Args:
    waveform: (S,) float32: sound of the record.
    number: Number of its file.

  Returns:
    A dictionary: `num_samples`; `num_not_finite` and `num_denormal` of them;
    `hz`, the frequency of the strongest tone; `level`, the amplitude of the
    expected tone in them; `error_db`, 20 log10 of what is not the expected tone
    over it (root mean squares), without the first and last 50 ms.
  """
  tiny = np.finfo(np.float32).tiny
  is_denormal = (np.abs(waveform) < tiny) & (waveform != 0)
  expected = make_tone(number, _RECORD_SOUND_RATE, [np.mean(_LEVELS)])[0]
  size = min(waveform.size, expected.size)
  inner = slice(_RECORD_SOUND_RATE // 20, size - _RECORD_SOUND_RATE // 20)
  one, other = waveform[inner].astype(float), expected[inner].astype(float)
  # Amplitude by the projection on the tone.
  gain = one @ other / (other @ other)
  error = np.sqrt(np.mean((one - other) ** 2) / np.mean(other**2))
  spectrum = np.abs(np.fft.rfft(one * np.hanning(one.size)))
  peak = int(spectrum.argmax())
  return {
    'num_samples': int(waveform.size),
    'num_not_finite': int((~np.isfinite(waveform)).sum()),
    'num_denormal': int(is_denormal.sum()),
    'hz': peak * _RECORD_SOUND_RATE / one.size,
    'level': float(gain * np.mean(_LEVELS)),
    'error_db': float(20 * np.log10(max(error, 1e-9))),
  }


def compare_frames(jpegs, frames: np.ndarray) -> float:
  """Mean PSNR, dB, of the frames of a record against what was filmed.

  Args:
    jpegs: The images of the record.
    frames: (75, 288, 360, 3) uint8, RGB.
  """
  psnrs = []
  for i, jpeg in enumerate(jpegs):
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    # Of two frames that are equally near it is the earlier.
    nearest = int(np.ceil(i * _FRAME_RATE / _RECORD_FRAME_RATE - 0.5))
    expected = cv2.resize(
      frames[nearest][..., ::-1], _RECORD_SIZE, interpolation=cv2.INTER_AREA
    )
    error = np.mean((image.astype(float) - expected) ** 2)
    psnrs.append(10 * np.log10(255**2 / error))
  return float(np.mean(psnrs))


def compare(pattern: str) -> dict:
  """Compares the records of a workload with the content of its files.

  Args:
    pattern: Pattern of the shards.

  Returns:
    A dictionary of measurements, each the worst of all records.
  """
  sounds, sizes, lengths, rates, kinds = {}, set(), set(), set(), set()
  psnrs, num_records, num_bytes, num_frames = [], 0, 0, 0
  for path in sorted(glob.glob(pattern)):
    for clip in reading.read_shard(path):
      number = int(os.path.splitext(clip.data_path)[0])
      num_records += 1
      sizes.add((clip.width, clip.height))
      lengths.add(len(clip.frames))
      rates.add((clip.frame_rate, clip.sample_rate))
      kinds.add(str(clip.waveform.dtype))
      sounds[number] = compare_sound(clip.waveform, number)
      num_bytes += sum(map(len, clip.frames))
      num_frames += len(clip.frames)
      if number < _NUM_COMPARED:
        psnrs.append(compare_frames(clip.frames, make_frames(number)))
  every = sounds.values()
  lossless = [
    sound for number, sound in sounds.items()
    if _is_lossless(number, num_records)
  ]  # fmt: skip
  return {
    'num_records': num_records,
    'num_different_records': len(sounds),
    'frame_sizes': sorted(sizes),
    'frames': sorted(lengths),
    'frame_and_sound_rates': sorted(rates),
    'samples': sorted({sound['num_samples'] for sound in every}),
    'sound_types': sorted(kinds),
    'num_not_finite': sum(sound['num_not_finite'] for sound in every),
    'num_denormal': sum(sound['num_denormal'] for sound in every),
    'largest_pitch_error_hz': max(
      abs(sound['hz'] - pitch(number)) for number, sound in sounds.items()
    ),
    'smallest_level': min(sound['level'] for sound in every),
    'largest_level': max(sound['level'] for sound in every),
    'largest_sound_error_db': max(sound['error_db'] for sound in every),
    'largest_lossless_sound_error_db': max(
      sound['error_db'] for sound in lossless
    ),
    'smallest_frame_psnr_db': min(psnrs),
    'bytes_per_frame': num_bytes / num_frames,
  }


def measure(num_clips: int = 600) -> dict:
  """Makes the workload, ingests it and compares.

  Args:
    num_clips: Number of files.

  Returns:
    A dictionary: the measurements of `run_ingest`, `decode_clips_per_second`
    (`decode_rate`), and `content` (`compare`).
  """
  with tempfile.TemporaryDirectory() as folder:
    media = os.path.join(folder, 'media')
    os.makedirs(media)
    manifest = write_media(media, num_clips)
    paths = sorted(glob.glob(os.path.join(media, '*.mp4')))
    num_bytes = sum(map(os.path.getsize, paths))
    reference = decode_rate(paths[:_NUM_REFERENCE])
    output_dir = os.path.join(folder, 'records')
    found = run_ingest(manifest, output_dir)
    again = decode_rate(paths[:_NUM_REFERENCE])
    found['decode_clips_per_second'] = (reference + again) / 2
    found['media_kilobits_per_second'] = (
      num_bytes * 8 / 1000 / num_clips / _SECONDS
    )
    found['content'] = compare(os.path.join(output_dir, 'train-*.tfrecord'))
  return found


def main():
  """Parses the command line, measures and prints."""
  parser = argparse.ArgumentParser(description='Times an ingest.')
  parser.add_argument('--num_clips', type=int, default=600)
  parser.add_argument('--output', help='a JSON file to write')
  arguments = parser.parse_args()
  found = measure(arguments.num_clips)
  print(json.dumps(found))
  content = found['content']
  print(
    f'{found["num_records"]} clips of {_SECONDS} s: '
    f'{found["clips_per_second"]:.1f} clips/s '
    f'({found["times_real_time"]:.0f} times real time) on '
    f'{found["num_cores"]} cores, after {found["startup_seconds"]:.1f} s; one '
    f'process that only decodes: {found["decode_clips_per_second"]:.1f} '
    f'clips/s; sound off by {content["largest_sound_error_db"]:.0f} dB, '
    f'{content["largest_lossless_sound_error_db"]:.0f} dB where lossless'
  )
  if arguments.output:
    file_utils.write_text(arguments.output, json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
  sys.exit(main())
