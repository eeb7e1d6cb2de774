"""Emotion inference: manifests, ONNX Runtime sessions, batching and the inference thread."""
