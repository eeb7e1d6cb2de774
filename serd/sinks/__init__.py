"""Where events go: the ZeroMQ publisher with its replay socket, and JSON lines."""
