"""A second graph of the same weights, for telephone segments that need no padding.

The exported graph takes 16 kHz and masks, layer after layer, what lies beyond a row's length. Most
segments of a telephone stream fill the window to the sample, and come at 8 kHz. For those a graph
without masks and without resampling gives the same scores for less. A segment alone, of any length,
runs at that length.

`narrowband` makes 8 kHz of 16, in audio and in the sines and cosines of a spectrum; `crnn` and
`compact` are the networks; `graph` chooses one of them, writes its graph and runs it.
"""
