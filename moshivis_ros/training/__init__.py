"""Training data and training: synthetic dialogues, codec, image encoder, language model."""
