"""What the notebooks stand on: profiles, rows, the run cache, results with their provenance, published tables, the score, plots."""
