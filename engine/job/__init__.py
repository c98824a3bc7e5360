"""What every engine process stands on: its record, what it is asked, its device, how it ends, checkpoints as files."""
