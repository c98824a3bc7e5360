"""What screens are made of: charts and bars drawn by ourselves, everything else is Textual's."""
