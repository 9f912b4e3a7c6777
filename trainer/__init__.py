"""From photos to a packaged model."""
