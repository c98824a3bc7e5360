"""What a trained network withstands: noise, corruptions, attacks."""
