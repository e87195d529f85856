"""Renders the files of the sample media, in several processes.

As a module it is a worker: `python -m vatt_tf.media.sample.rendering JOB`.
"""

import csv
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import threading

import av
import numpy as np

from vatt_tf.core import progress_bar
from vatt_tf.media.sample import pictures, plan, sounds


def _write_mp4(path, frames, audio, options):
  """Writes frames (T, H, W, 3) uint8 and sound (S,) float32, or None."""
  temporary = path.with_suffix('.tmp')
  with av.open(
    str(temporary), 'w', format='mp4', options={'fflags': '+bitexact'}
  ) as container:
    video = container.add_stream('libx264', rate=options.frame_rate)
    video.width = video.height = options.frame_size
    video.pix_fmt = 'yuv420p'
    # The same bytes each time: with its macroblock tree (measured) or with
    # several threads the encoder does not always write them.
    video.options = {
      'preset': 'veryfast',
      'crf': '20',
      'x264-params': 'mbtree=0',
    }
    video.codec_context.thread_count = 1
    sound = None
    if audio is not None:
      sound = container.add_stream('aac', rate=options.audio_rate)
      sound.layout = 'mono'
      sound.bit_rate = 64000
    for number, pixels in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      frame.pts = number
      container.mux(video.encode(frame))
    container.mux(video.encode(None))
    if sound is not None:
      frame = av.AudioFrame.from_ndarray(
        audio[np.newaxis], format='fltp', layout='mono'
      )
      frame.sample_rate = options.audio_rate
      frame.pts = 0
      container.mux(sound.encode(frame))
      container.mux(sound.encode(None))
  os.replace(temporary, path)


def _vtt_time(seconds):
  """Returns seconds as WebVTT writes them, e.g. `00:00:01.500`."""
  milliseconds = round(seconds * 1000)
  minutes, milliseconds = divmod(milliseconds, 60000)
  whole, milliseconds = divmod(milliseconds, 1000)
  hours, minutes = divmod(minutes, 60)
  return f'{hours:02d}:{minutes:02d}:{whole:02d}.{milliseconds:03d}'


def _write_text(path, text):
  temporary = path.with_suffix('.tmp')
  temporary.write_text(text, encoding='utf-8')
  os.replace(temporary, path)


def write_clip(
  clip: plan.Clip, output_dir: pathlib.Path, options: plan.Options
) -> list[list[pictures.Box]]:
  """Renders one clip and writes its files.

  Args:
    clip: Content of the clip.
    output_dir: Folder of the set.
    options: Options of the set.

  Returns:
    The boxes of each frame.
  """
  path = output_dir / clip.video_path
  audio = sounds.render_audio(clip, options) if clip.has_audio else None
  frames, boxes = pictures.render(clip, options)
  _write_mp4(path, frames, audio, options)
  if clip.caption_form == 'vtt':
    cues = [
      f'{_vtt_time(start)} --> {_vtt_time(end)}\n{text}\n'
      for start, end, text in clip.captions
    ]
    _write_text(path.with_suffix('.vtt'), '\n'.join(['WEBVTT\n', *cues]))
  return boxes


def _write_table(path, rows):
  """Writes a csv file, whose first row is the header."""
  temporary = path.with_suffix('.tmp')
  with open(temporary, 'w', encoding='utf-8', newline='') as file:
    csv.writer(file, lineterminator='\n').writerows(rows)
  os.replace(temporary, path)


def _write_manifest(path, clips, options):
  rows = [['video_path', 'start', 'end', 'label', 'caption']]
  for clip in clips:
    caption = clip.captions[0][2] if clip.caption_form == 'csv' else ''
    label = getattr(clip, options.label)
    rows.append([clip.video_path, 0, options.duration, label, caption])
  _write_table(path, rows)


def _write_boxes(path, clips, boxes):
  """Writes the boxes of clips, a row for each shape in each frame.

  Args:
    path: Path of the csv file.
    clips: Clips of a split.
    boxes: Rows `(frame, xmin, ymin, xmax, ymax, label, is_sounding)` by the
      path of the clip.
  """
  header = 'video_path frame xmin ymin xmax ymax label is_sounding'
  rows = [header.split()]
  for clip in clips:
    rows += [[clip.video_path, *row] for row in boxes[clip.video_path]]
  _write_table(path, rows)


def _run_worker(job):
  """Renders the clips of a worker; prints their paths and boxes as JSON."""
  options = plan.Options(**job['options'])
  clips = plan.plan_clips(options)[job['worker'] :: job['num_workers']]
  for clip in clips:
    boxes = write_clip(clip, pathlib.Path(job['output_dir']), options)
    rows = [
      [
        number,
        *(
          round(edge, 5) for edge in (box.left, box.top, box.right, box.bottom)
        ),
        box.label,
        int(box.is_sounding),
      ]
      for number, of_frame in enumerate(boxes)
      for box in of_frame
    ]
    print(json.dumps([clip.video_path, rows]), flush=True)


def _run_workers(jobs, progress):
  """Runs each job in a process of its own.

  They are plain child processes, so that a caller that has loaded TensorFlow
  need not fork.

  Returns:
    Rows of boxes by the path of the clip.
  """
  boxes = {}
  processes = [
    subprocess.Popen(
      [sys.executable, '-m', __spec__.name, json.dumps(job)],
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'},
    )
    for job in jobs
  ]

  def follow(process):
    for line in process.stdout:
      path, rows = json.loads(line)
      boxes[path] = rows
      progress.update()

  threads = [threading.Thread(target=follow, args=[p]) for p in processes]
  try:
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    for process in processes:
      if process.wait():
        raise RuntimeError(
          f'A worker ended with exit code {process.returncode}; its error is '
          'above. Run the command again: it writes every file again.'
        )
  finally:
    for process in processes:
      if process.poll() is None:
        process.terminate()
        process.wait()
  return boxes


def write_sample_media(
  output_dir: str | os.PathLike,
  num_workers: int | None = None,
  **options: int | float | str,
) -> list[plan.Clip]:
  """Renders the set and writes its media, captions, boxes and manifests.

  Args:
    output_dir: Folder of the set; created if it is missing. Files of an earlier
      run are replaced.
    num_workers: Number of processes; by default one per core.
    **options: Fields of `plan.Options`: `num_train`, `num_validation`, `seed`
      and so on.

  Returns:
    The clips, training clips first.

  Raises:
    ValueError: An option is out of its range.
    RuntimeError: A worker failed.
  """
  settings = plan.Options(**options)
  output_dir = pathlib.Path(output_dir)
  clips = plan.plan_clips(settings)
  for split in plan.SPLITS:
    (output_dir / split).mkdir(parents=True, exist_ok=True)
  if num_workers is None:
    num_workers = len(os.sched_getaffinity(0))
  num_workers = max(1, min(num_workers, len(clips)))
  jobs = [
    {
      'options': dataclasses.asdict(settings),
      'output_dir': str(output_dir),
      'worker': worker,
      'num_workers': num_workers,
    }
    for worker in range(num_workers)
  ]
  with progress_bar.make(total=len(clips), unit='clip') as bar:
    boxes = _run_workers(jobs, bar)
  # The manifests come last: an existing one names whole files only.
  for split in plan.SPLITS:
    rows = [clip for clip in clips if clip.split == split]
    _write_boxes(output_dir / f'{split}_boxes.csv', rows, boxes)
    _write_manifest(output_dir / f'{split}.csv', rows, settings)
  return clips


if __name__ == '__main__':
  _run_worker(json.loads(sys.argv[1]))
