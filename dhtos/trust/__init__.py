"""Who may do what, without a server to ask: keys, handshakes, certificates, join tokens.

Sans-IO as the engine: entropy, clocks and keys are passed in.
"""
