"""The commands that need the `train` extra, a module each: label, retrain, models, tune."""
