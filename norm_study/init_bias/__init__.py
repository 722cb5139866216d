"""Where the norm stands, and what an untrained network guesses (*Where You Place the Norm Matters*)."""
