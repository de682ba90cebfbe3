"""The kernels in plain Python: the specification that the compiled ones are tested against."""
