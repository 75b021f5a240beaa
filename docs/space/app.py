"""The planner's page on a Space (or any host that runs a Python file): put this beside requirements.txt."""

from planner.web import serve

serve(host="0.0.0.0", port=7860)
