"""The two wire formats: tap messages in, events out. Specified in this folder's README."""
