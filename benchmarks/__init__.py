"""Speed and memory, measured beside other frameworks; ``docs/performance.md`` tells the story.

    make bench                                 everything, about a quarter of an hour on two cores
    python -m benchmarks --quick               a look, in about a minute
    python -m benchmarks --only W --batches 128
    python -m benchmarks.time_to_accuracy --data-dir FOLDER
    python -m benchmarks.memory
    python -m benchmarks.rules
    python -m benchmarks.idioms

Read ``rounds.py`` (what is a fair ratio), ``servers.py`` (who runs where), ``contenders.py`` (who
takes part), ``networks.py`` and ``ours.py``; each file of ``peers/`` is one other framework.
"""
