"""The data: targets, stacks, images, GPUs, drivers and launch flags, typed and linked to their sources."""
