"""Training of the compact encoder, `trainer.backbones.compact`, by a large one.

`lessons` keeps on disk what the teacher says of recordings, and what the student hears of them;
`beginning` makes the student of a piece of its teacher; `training` teaches it.
"""
