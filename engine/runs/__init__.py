"""What happened: run directories, their event log, their engines, and how to talk to them."""
