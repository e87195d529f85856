"""Plots of what a model has learned, drawn with matplotlib.

Each function returns a `matplotlib.figure.Figure`, which needs no display.
"""

from collections.abc import Mapping, Sequence
import textwrap

import matplotlib
from matplotlib import figure, patches
import numpy as np

from vatt_tf.localization import overlay

# Largest number of principal components that t-SNE works on.
_NUM_COMPONENTS = 50
# Colours and markers distinguish the groups.
_MARKERS = 'os^vDP*X'
_NUM_COLORS = 10
_MAX_NAMED = _NUM_COLORS * len(_MARKERS)


def embed_in_plane(features: np.ndarray, seed: int = 0) -> np.ndarray:
  """Embeds features in a plane with t-SNE (van der Maaten, Hinton 2008).

  The perplexity is 30, or a third of the rows if there are fewer than 90.

  Args:
    features: (N, D) float: features, N at least 4.
    seed: Seed of the layout; equal seeds give equal layouts.

  Returns:
    (N, 2) float32 array.

  Raises:
    ValueError: There are fewer than 4 rows, or one is not finite.
  """
  features = np.asarray(features, np.float32)
  if features.ndim != 2 or len(features) < 4:
    raise ValueError(
      '`features` must be (N, D) with at least 4 rows. '
      f'Received: features.shape={features.shape}'
    )
  if not np.isfinite(features).all():
    row = int(np.argmin(np.isfinite(features).all(1)))
    raise ValueError(f'`features` must be finite. Received: row {row} is not.')
  # scikit-learn takes seconds to import; nothing else should wait for it.
  from sklearn import decomposition, manifold

  if min(features.shape) > _NUM_COMPONENTS:
    reduction = decomposition.PCA(_NUM_COMPONENTS, random_state=seed)
    features = reduction.fit_transform(features)
  # Equal rows have principal components that do not vary, and no layout.
  if not np.ptp(features, axis=0).any():
    return np.zeros([len(features), 2], np.float32)
  layout = manifold.TSNE(
    perplexity=min(30.0, (len(features) - 1) / 3),
    init='pca',
    random_state=seed,
  )
  return layout.fit_transform(features)


def draw_points(
  points: np.ndarray, groups: Sequence[str], title: str, legend_title: str = ''
) -> figure.Figure:
  """Draws points in a plane, with a colour and a marker for each group.

  Args:
    points: (N, 2) float: coordinates of the points.
    groups: Names of the groups of the N points.
    title: Title above the plot.
    legend_title: Title of the legend.

  Returns:
    The figure. With more than 80 groups there is no legend, and colours are
    spread over all groups in their order.
  """
  names = sorted(set(groups))
  groups = np.asarray(groups)
  is_named = len(names) <= _MAX_NAMED
  sheet = figure.Figure(figsize=(7.5, 5.5), dpi=110, layout='constrained')
  axes = sheet.add_subplot()
  colors = matplotlib.colormaps['tab10' if is_named else 'nipy_spectral']
  for i, name in enumerate(names):
    rows = points[groups == name]
    axes.scatter(
      rows[:, 0],
      rows[:, 1],
      s=14,
      linewidths=0,
      alpha=0.75,
      color=colors(i % _NUM_COLORS if is_named else i / len(names)),
      marker=_MARKERS[i // _NUM_COLORS] if is_named else 'o',
      label=_plain(name),
    )
  axes.set_xticks([])
  axes.set_yticks([])
  axes.set_title(_plain(title), fontsize=10)
  if is_named:
    sheet.legend(
      loc='outside right upper',
      fontsize=7,
      title=legend_title,
      title_fontsize=8,
      ncols=1 + (len(names) - 1) // 28,
      markerscale=1.5,
    )
  return sheet


def draw_activations(means: Mapping[str, np.ndarray]) -> figure.Figure:
  """Draws the mean activation of each node and layer for each modality.

  Args:
    means: (num_layers, D) float: mean activations by modality.

  Returns:
    The figure, in the form of the paper's figure 4. All modalities share one
    colour scale, which ends at the 99th percentile of the absolute values.
  """
  names = list(means)
  values = np.stack([np.asarray(means[name]) for name in names])
  limit = max(float(np.percentile(np.abs(values), 99)), 1e-12)
  num_layers = values.shape[1]
  height = max(1.1, 0.16 * num_layers) + 0.35
  sheet = figure.Figure(
    figsize=(9, height * len(names) + 0.5), dpi=110, layout='constrained'
  )
  panels = sheet.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
  for axes, name, value in zip(panels, names, values):
    image = axes.imshow(
      value,
      aspect='auto',
      interpolation='nearest',
      cmap='RdBu_r',
      vmin=-limit,
      vmax=limit,
      origin='lower',
      extent=(-0.5, value.shape[1] - 0.5, 0.5, num_layers + 0.5),
    )
    axes.set_ylabel(f'{_plain(name)}\nlayer', fontsize=8)
    axes.set_yticks(_ticks(num_layers))
    axes.tick_params(labelsize=7)
  panels[-1].set_xlabel('node', fontsize=8)
  bar = sheet.colorbar(image, ax=list(panels), shrink=0.8, pad=0.01)
  bar.ax.tick_params(labelsize=7)
  bar.set_label('average activation', fontsize=8)
  return sheet


def _ticks(num_layers):
  step = max(1, num_layers // 6)
  return list(range(1, num_layers + 1, step))


def draw_confusion(
  counts: np.ndarray, label_names: Sequence[str] | str | None
) -> figure.Figure:
  """Draws a confusion matrix, rows scaled to shares of the true class.

  Args:
    counts: (C, C) integer: number of clips by true class (row) and predicted
      class (column).
    label_names: Names of the C classes.

  Returns:
    The figure; with up to 20 classes each cell holds its count.
  """
  counts = np.asarray(counts)
  totals = counts.sum(1, keepdims=True)
  shares = counts / np.maximum(totals, 1)
  size = float(np.clip(2.5 + 0.32 * len(counts), 4.0, 12.0))
  sheet = figure.Figure(
    figsize=(size + 1.2, size), dpi=110, layout='constrained'
  )
  axes = sheet.add_subplot()
  image = axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
  if len(counts) <= 60:
    names = [_plain(name) for name in label_names]
    axes.set_xticks(range(len(counts)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(counts)), names, fontsize=7)
  if len(counts) <= 20:
    for (row, column), count in np.ndenumerate(counts):
      if count:
        axes.text(
          column,
          row,
          str(count),
          ha='center',
          va='center',
          fontsize=7,
          color='white' if shares[row, column] > 0.5 else 'black',
        )
  axes.set_xlabel('predicted', fontsize=8)
  axes.set_ylabel('true', fontsize=8)
  sheet.colorbar(image, ax=axes, shrink=0.8).set_label(
    'share of the true class', fontsize=8
  )
  return sheet


def draw_retrieval(
  queries: Sequence[str],
  frames: np.ndarray,
  scores: np.ndarray,
  is_match: np.ndarray,
  ranks: np.ndarray,
) -> figure.Figure:
  """Draws queries beside the frames of their best results.

  Args:
    queries: Texts of the Q queries.
    frames: (Q, K, H, W, 3) uint8: frames of the first K items of each query.
    scores: (Q, K) float: similarities of the items.
    is_match: (Q, K) bool: whether the item belongs to the query; such items
      have a green border.
    ranks: (Q,) integer: rank of the first item that belongs to the query.

  Returns:
    The figure.
  """
  num_queries, num_items = scores.shape
  sheet = figure.Figure(
    figsize=(3.2 + 1.25 * num_items, 1.45 * num_queries + 0.1), dpi=100
  )
  grid = sheet.add_gridspec(
    num_queries,
    num_items + 1,
    width_ratios=[2.4] + [1] * num_items,
    left=0.01,
    right=0.99,
    top=0.97,
    bottom=0.01,
    wspace=0.06,
    hspace=0.28,
  )
  for row in range(num_queries):
    words = sheet.add_subplot(grid[row, 0])
    words.set_axis_off()
    words.text(
      0,
      0.5,
      f'{_wrapped(queries[row])}\n(its own: rank {ranks[row]})',
      fontsize=8,
      va='center',
    )
    words.set_xlim(0, 1)
    for column in range(num_items):
      axes = sheet.add_subplot(grid[row, column + 1])
      axes.imshow(frames[row, column])
      axes.set_xticks([])
      axes.set_yticks([])
      axes.set_title(f'{scores[row, column]:.3f}', fontsize=7, pad=2)
      is_shown_green = bool(is_match[row, column])
      for spine in axes.spines.values():
        spine.set_color('limegreen' if is_shown_green else 'lightgray')
        spine.set_linewidth(3 if is_shown_green else 0.5)
  return sheet


def draw_maps(images: np.ndarray, maps: np.ndarray) -> figure.Figure:
  """Draws where clips sound: frames, and below them frames with their maps.

  Args:
    images: (N, T, H, W, 3) uint8: frames of the clips.
    maps: (N, t, h, w) float: a map for each of up to 8 steps.

  Returns:
    A figure with two rows for each clip.
  """
  steps = np.linspace(0, maps.shape[1] - 1, min(maps.shape[1], 8))
  steps = np.unique(steps.round().astype(int))
  whole = (0.0, 0.0, 1.0, 1.0)
  rows = []
  for frames, of_clip in zip(images, maps, strict=True):
    # The frame in the middle of its step.
    chosen = [
      frames[int((step + 0.5) * len(frames) / len(of_clip))] for step in steps
    ]
    laid = [
      overlay.lay_over(image, of_clip[step], whole)
      for image, step in zip(chosen, steps)
    ]
    rows += [np.concatenate(chosen, 1), np.concatenate(laid, 1)]
  sheet = np.concatenate(rows)
  height, width = sheet.shape[:2]
  inches = 1.1 * len(steps)
  drawn = figure.Figure(figsize=(inches, inches * height / width), dpi=100)
  axes = drawn.add_axes((0, 0, 1, 1))
  axes.imshow(sheet, interpolation='nearest', aspect='auto')
  axes.set_axis_off()
  return drawn


def draw_detections(
  images: np.ndarray,
  boxes: Sequence[np.ndarray],
  titles: Sequence[Sequence[str]],
) -> figure.Figure:
  """Draws images with the boxes of what was found in them.

  Args:
    images: (N, H, W, 3) uint8.
    boxes: Left, upper, right and lower edges (n, 4) for each image, as shares
      of the image.
    titles: Text of each box, for each image.

  Returns:
    A figure of rows of up to 8 images.
  """
  columns = min(len(images), 8)
  rows = -(-len(images) // columns)
  height, width = images.shape[1:3]
  drawn = figure.Figure(
    figsize=(1.6 * columns, 1.6 * rows * height / width), dpi=100
  )
  for i, image in enumerate(images):
    axes = drawn.add_axes(
      (
        i % columns / columns,
        1 - (i // columns + 1) / rows,
        0.98 / columns,
        0.98 / rows,
      )
    )
    axes.imshow(image, aspect='auto', extent=(0, 1, 1, 0))
    axes.set_axis_off()
    for edges, title in zip(boxes[i], titles[i], strict=True):
      left, top, right, bottom = edges
      axes.add_patch(
        patches.Rectangle(
          (left, top), right - left, bottom - top, fill=False, color='white'
        )
      )
      axes.text(left, top, _plain(title), color='white', fontsize=6)
  return drawn


def _wrapped(text):
  return _plain('\n'.join(textwrap.wrap(textwrap.shorten(text, 160), 34)))


def _plain(text):
  """The text, such that matplotlib does not read it as a formula."""
  return str(text).replace('$', r'\$')
