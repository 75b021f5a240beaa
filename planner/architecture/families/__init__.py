"""One small builder per family: a config's fields in, an inventory out."""
