"""The sections of the page: a title, a figure, a table."""

from __future__ import annotations

from . import figures, views

SECTIONS = (
    ("Parameters", figures.parameters, views.parameters),
    ("Capacity", figures.capacity, views.capacity),
    ("Memory", figures.memory, views.memory),
    ("Learning rate", figures.learning_rate, views.learning_rate),
    ("FLOPs", figures.compute, views.compute),
    ("Time, cost", figures.step, views.time_and_cost),
)
