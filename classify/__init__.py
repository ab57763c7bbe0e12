"""Stage 2: features become predictions. Never opens an image or a backbone."""
