"""What kind of process this is, as the command line says of its own."""

# Whether it ends after one answer, works with models on the meta device at most, and compiles and trains nothing: it
# may then import without what only the rest of such packages needs.
ends_soon = False
# Processor time that was spent on this process's answer before it was forked off, in seconds.
spent_before_s = 0.0
# Whether it is to end without the interpreter's tidying up: libraries are being loaded by a thread.
leaves_at_once = False
# Whether it was forked to do a part of another one's work, and so forks none itself.
works_for_another = False
