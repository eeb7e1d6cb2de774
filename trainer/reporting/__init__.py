"""How `trainer.report` is made from predictions, and how it is shown in a terminal."""
