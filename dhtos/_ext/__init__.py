"""The compiled kernels; their sources are in `ext/`, their specification in `_reference`."""
