"""The terminal side of hah-tui: the command line and the screens. Nothing here imports torch."""
