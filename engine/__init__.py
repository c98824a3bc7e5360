"""The engine of hah-tui: experiments in, run directories out. Importing it does nothing."""

__version__ = "0.1.0"
