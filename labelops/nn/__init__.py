"""The parts that need torch: embedders, linear heads, training. The same code on CPU and GPU."""
