"""What the notebooks build on: profiles, rows, the run cache, results with their provenance, published tables, the score, plots."""
