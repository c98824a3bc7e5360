"""Images: archives on disk, and batches on the device. Importing it imports no torch."""
