"""Training: the step, the loop, checkpoints and the record they leave."""
