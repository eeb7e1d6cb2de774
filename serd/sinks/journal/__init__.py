"""The journal: events on disk before they are published, in the order of their cursors.

`files` are the two small files beside the journal (who has it, and how far cursors got without
it), `store` is the SQLite file as its one writer sees it, `reader` as everybody else does, and
`writer` has the thread and what it does when the disk does not play along.
"""
