"""Training: corpora and our own queries -> the artifact that router/ loads. Needs the `train` extra."""
