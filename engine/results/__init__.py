"""What was measured: the table of suites, the numbers in their result files, and what follows from several of them."""
