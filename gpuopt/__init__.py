"""gpuopt."""
