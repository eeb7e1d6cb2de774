"""Manifests, providers, the model, batching and the inference thread."""
