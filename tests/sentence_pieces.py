"""A tiny SentencePiece model, with T5's special pieces."""

import io

import sentencepiece

SENTENCES = ('the red ball', 'a blue cube and a ball')


def train(sentences=SENTENCES, vocab_size=16):
  """Trains a model.

  Args:
    sentences: of which it learns the pieces.
    vocab_size: the number of pieces, at most.

  Returns:
    The contents of its file, bytes. 0 is padding, 1 the end, 2 unknown.
  """
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(list(sentences) * 9),
    model_writer=model,
    vocab_size=vocab_size,
    hard_vocab_limit=False,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    minloglevel=2,
  )
  return model.getvalue()
