"""The paper's tables and figures from the results of runs, beside the published numbers."""
