"""One self-contained page out of any studies and runs, and the verdicts on the papers' claims."""
