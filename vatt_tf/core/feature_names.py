"""Keys of the feature dictionaries that pass between the parts of vatt_tf.

The input pipeline makes a dictionary with the input keys; the model takes it
and returns a dictionary with the output keys. `B` is the batch, `C` the
captions of a clip, `D` an embedding width.
"""

# Inputs. They are float32 unless noted otherwise.
VIDEO = 'video'  # (B, T, H, W, 3), in [-1, 1]
AUDIO = 'audio'  # (B, S, 1), in [-1, 1]
SPECTROGRAM = 'spectrogram'  # (B, F, M), in place of AUDIO; see AudioConfig
TEXT = 'text'  # (B, C, L), int32 token ids, 0 is padding
VIDEO_MASK = 'video_mask'  # (B,), bool: the clip has video
AUDIO_MASK = 'audio_mask'  # (B,), bool: the clip has sound
TEXT_MASK = 'text_mask'  # (B, C), bool: the caption exists
# Boxes in the frames of a video, K at most: their left, upper, right and lower
# edges as shares of the frame, which boxes exist, their classes (-1 for a label
# without a class), and which sound (1, 0, or -1 where nobody knows).
VIDEO_BOXES = 'video_boxes'  # (B, T, K, 4)
VIDEO_BOX_MASK = 'video_box_mask'  # (B, T, K), bool
VIDEO_BOX_CLASS = 'video_box_class'  # (B, T, K), int32
VIDEO_BOX_IS_SOUNDING = 'video_box_is_sounding'  # (B, T, K), int32
LABEL = 'label'  # (B,), int32, or (B, num_classes), float32
EXAMPLE_ID = 'example_id'  # (B,), string; stays on the host
VALID = 'valid'  # (B,), bool: not the padding of an evaluation's last batch

# Outputs: pooled features, before the projection heads.
VIDEO_FEATURE = 'video_feature'  # (B, d_model)
AUDIO_FEATURE = 'audio_feature'  # (B, d_model)
TEXT_FEATURE = 'text_feature'  # (B, C, d_model)

# Outputs: embeddings in the video-audio and in the video-text space, as the
# heads compute them (not normalised).
VIDEO_VA = 'video_va'  # (B, D_va)
AUDIO_VA = 'audio_va'  # (B, D_va)
VIDEO_VT = 'video_vt'  # (B, D_vt)
TEXT_VT = 'text_vt'  # (B, C, D_vt)
AUDIO_VT = 'audio_vt'  # (B, D_vt), projected from the video-audio space

# Outputs of the training step with a local term: the tokens of the video tower,
# those in the video-audio space (not normalised), and which DropToken keeps.
VIDEO_TOKENS = 'video_tokens'  # (B, t, h, w, d)
VIDEO_TOKEN_VA = 'video_token_va'  # (B, t, h, w, D_va)
VIDEO_TOKEN_MASK = 'video_token_mask'  # (B, t, h, w), bool
