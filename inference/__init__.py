"""Serves a packaged model over HTTP; needs no torch."""
