"""`python -m planner` is `lora-plan`."""

from .cli import main

if __name__ == "__main__":
    main()
