"""Many runs: plans of them, the queue of this box, and who starts what waits in it. Light: without torch."""
