"""Where audio comes from: ZeroMQ taps, microphones, files, and the intake they all feed."""
