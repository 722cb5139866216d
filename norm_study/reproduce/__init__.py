"""Every experiment of the papers, with a verdict per claim."""
