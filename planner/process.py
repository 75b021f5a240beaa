"""What kind of process this is, as the command line says of its own."""

# Whether it ends after one answer, builds models on the meta device at most, and compiles and trains nothing: what it
# imports for that may then leave out what only the rest of such packages needs.
ends_soon = False
