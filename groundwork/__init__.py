"""What any experiment stands on; it knows nothing of mazes, planners or norms."""
