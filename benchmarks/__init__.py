"""What things cost: ours and the peers, side by side. `python -m benchmarks` prints a table, rows we lose included."""


class AbsentError(Exception):
    """What is to be measured is not here; the message says what is missing."""
