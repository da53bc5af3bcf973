"""Files to samples: formats, checks, splits, augmentation, generated images."""
