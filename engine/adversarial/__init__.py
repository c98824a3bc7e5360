"""Norm balls around images and projected gradient descent in them, for training and evaluation alike."""
