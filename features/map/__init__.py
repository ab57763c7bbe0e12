"""A map of the images of a cache, as one page, and the images that resemble one.

In reading order: `images` (which there are, and what is known of them), `sample`, `neighbours`, `layout`,
`thumbnails`, `page`, `similar`.
"""
