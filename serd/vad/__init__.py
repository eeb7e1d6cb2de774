"""Voice activity detection: speech probabilities for all ready rows in one call."""
