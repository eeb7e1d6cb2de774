"""Training of the models that `serd` ships: corpora, splits, augmentation, training, export."""
