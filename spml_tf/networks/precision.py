"""Where bfloat16 trains faster than float32, as far as that was measured."""

from __future__ import annotations

from spml_tf.system import processor

# Networks whose training step was at least 1.2 times as fast in mixed_bfloat16 on a processor that
# has it, see docs/speed.md; depthwise convolutions are slower in it, and small ones no faster.
_FASTER = ("resnet50",)
_PROCESSOR_FLAGS = ("amx_bf16", "avx512_bf16")


def automatic(network: str) -> tuple[str, str]:
    """The precision that trains a network fastest here, and why.

    Args:
        network: as --network names it.

    Returns:
        "bfloat16" or "none", and the reason as a sentence's end.
    """
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return "none", "nothing was measured on a GPU yet"
    if network not in _FASTER:
        return "none", f"no gain was measured for {network}"
    found = [flag for flag in _PROCESSOR_FLAGS if flag in processor.flags()]
    if not found:
        return "none", f"the processor has none of {', '.join(_PROCESSOR_FLAGS)}"
    return "bfloat16", f"{network} on a processor with {found[0]}"
