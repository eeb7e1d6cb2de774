"""Our own voice-activity model: mixtures with exact labels, a small streaming network, its export.

Speech of the emotion corpora is laid into conversations with pauses, put into rooms, mixed with
noise, music and signalling tones and sent through telephones (`mixture`), so that what is speech
is known to the millisecond. The network (`network`) learns from that and from the probabilities
of an established detector (`teacher`), and becomes one ONNX file for both rates (`exporting`).
"""
