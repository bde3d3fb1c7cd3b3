"""The commands that need the `train` extra: label, retrain, models, tune."""
