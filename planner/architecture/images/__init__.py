"""Images in a step: what they put into a sequence and what their tower runs.

`with_images(arch, config, count, size)` is the architecture with images in every sequence; `known_types()` are the
model types that it can be asked for.
"""

from .account import known_types, with_images

__all__ = ["known_types", "with_images"]
