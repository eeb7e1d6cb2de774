"""Figures of reports: one module a kind of figure, all drawn by `trainer.plots.style`."""
