"""The memory of a compiled program."""

import jax


def peak_bytes(compiled: jax.stages.Compiled) -> int:
    """XLA's plan of what a program holds on each device: arguments, temporaries, and outputs that
    are no arguments."""
    memory = compiled.memory_analysis()
    assert memory is not None
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return peak + memory.temp_size_in_bytes - memory.alias_size_in_bytes
