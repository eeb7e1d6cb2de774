"""Pretrained speech encoders, as the first part of a model and as teachers.

Weights are never this repository's: they come from the Hugging Face hub, from a folder, or from a
package that is installed apart. `trainer.models.backbone` makes an emotion model of an encoder,
`trainer.backbones.frozen` keeps what a frozen one hears on disk.
"""
