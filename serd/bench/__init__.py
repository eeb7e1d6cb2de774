"""Measures a daemon under live calls: ``serd bench``.

`conversations` makes the audio, `expected` what must come of it, `tape` the messages, `generator`
(a process of its own) sends them, `receiver` takes the daemon's events, `process` watches its
processor time and memory, `run` puts one measurement together, `report` makes figures of it;
`search` looks for the most streams, `plot` and `table` show the results.
"""
