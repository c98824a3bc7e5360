"""What goes through Slurm, against a real one."""
