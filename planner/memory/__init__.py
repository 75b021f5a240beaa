"""Peak memory of a fine-tune in closed form: what is held, what a step allocates on top of it, and when it peaks.

`estimate_memory(arch, setup, adapted, whole)` gives a `MemoryEstimate`. It is in microseconds to milliseconds,
without torch: every kind of layer is run once over a tape of sizes (`tape`), by small rules of what each module
keeps (`elementwise`, `products`, `attention`, `experts`, `head`), and the step is put together from the layers
(`step`).
"""

from .overhead import with_open_lengths
from .peak import estimate_memory, memory_gap

__all__ = ["estimate_memory", "memory_gap", "with_open_lengths"]
